"""The same values, faster: convolutions with weights packed once, each in one call with its ReLU.

PyTorch on a CPU packs the weights of a convolution anew at every call, and reads and writes
its output once more for the ReLU. oneDNN does both in one go.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .hooks import recording

ROUNDING = 1e-5  # of a site's largest value

_pack: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub is wrong


@dataclass(frozen=True)
class _Step:
    """A convolution, and the ReLU that takes its output as it is, where there is one."""

    conv: nn.Conv2d
    relu: nn.ReLU | None
    shape: torch.Size  # of what the convolution takes


@contextmanager
def fused(
    module: nn.Module, sites: Mapping[str, tuple[str, ...]], probe: Tensor, batch: int
) -> Iterator[bool]:
    """Within the body, forward passes on a CPU without gradients run with fused convolutions.

    `probe` is one input, `batch` how many will come at a time. A pass over the probe finds
    which ReLU takes which convolution's output, another one says whether all sites still come
    out as they were but for rounding; where they do not, or there is no oneDNN, the network
    stays as it is (and the body is told False). No ReLU is fused into a convolution that is
    itself a site, or that somebody watches with a hook. Nothing is left after the body.
    """
    plain = _outputs(module, sites, probe)
    steps = _steps(module, sites, probe) if _possible(module, probe) else []
    try:
        for step in steps:
            _fuse(step, batch)
        same = bool(steps) and _same(plain, _outputs(module, sites, probe))
        if not same:
            _undo(steps)
        yield same
    finally:
        _undo(steps)


def _possible(module: nn.Module, probe: Tensor) -> bool:
    on_cpu = probe.device.type == "cpu" and all(p.device.type == "cpu" for p in module.parameters())
    return on_cpu and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


@torch.inference_mode()
def _outputs(
    module: nn.Module, sites: Mapping[str, tuple[str, ...]], probe: Tensor
) -> dict[str, Tensor]:
    with recording(module, sites) as forward:
        return forward(probe)


def _same(plain: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    def close(acts: Tensor, again: Tensor) -> bool:
        return bool((acts - again).abs().max() <= ROUNDING * acts.abs().max())

    return all(close(acts, other[site]) for site, acts in plain.items())


@torch.inference_mode()
def _steps(module: nn.Module, sites: Mapping[str, tuple[str, ...]], probe: Tensor) -> list[_Step]:
    """Every plain convolution that is called once on the way to the sites, with its ReLU."""
    kept = {name for names in sites.values() for name in names}
    outputs: dict[nn.Conv2d, list[tuple[torch.Size, Tensor]]] = {}
    inputs: dict[nn.ReLU, list[Tensor]] = {}
    handles = []

    def saw_conv(conv: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        outputs.setdefault(conv, []).append((args[0].shape, output))

    def saw_relu(relu: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(relu, nn.ReLU)
        inputs.setdefault(relu, []).append(args[0])

    watched = {n for n, m in module.named_modules() if m._forward_hooks or m._forward_pre_hooks}
    named = {m: n for n, m in module.named_modules()}
    try:
        for part in module.modules():
            if type(part) is nn.Conv2d and part.padding_mode == "zeros":
                handles.append(part.register_forward_hook(saw_conv))
            elif type(part) is nn.ReLU:
                handles.append(part.register_forward_pre_hook(saw_relu))
        with recording(module, sites) as forward:
            forward(probe)
    finally:
        for handle in handles:
            handle.remove()
    steps = []
    for conv, seen in outputs.items():
        if len(seen) != 1 or isinstance(conv.padding, str) or conv.weight.dtype != torch.float32:
            continue
        shape, output = seen[0]
        after = [r for r, taken in inputs.items() if len(taken) == 1 and taken[0] is output]
        free = not {named[conv]} & (set(kept) | watched)
        steps.append(_Step(conv, after[0] if len(after) == 1 and free else None, shape))
    return steps


def _fuse(step: _Step, batch: int) -> None:
    conv, act = step.conv, "relu" if step.relu else "none"
    how = (conv.padding, conv.stride, conv.dilation, conv.groups)
    with torch.inference_mode():
        packed = _pack(conv.weight.to_mkldnn(), *how, (batch, *step.shape[1:]))

    def forward(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, packed, conv.bias, *how, act, [], ""
        )
        return out

    _replace(conv, forward)
    if step.relu:
        _replace(step.relu, lambda x: x)


def _replace(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
    """An attribute of the instance hides the method of the class until it is deleted."""
    module.forward = forward


def _undo(steps: list[_Step]) -> None:
    for step in steps:
        for part in (step.conv, step.relu):
            if part is not None:
                part.__dict__.pop("forward", None)
