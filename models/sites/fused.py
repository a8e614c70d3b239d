"""Faster convolutions on a CPU: weights packed once, and each ReLU fused into its convolution.

PyTorch repacks a convolution's weights at every call, and reads and writes its output once more
for the ReLU. A single oneDNN call avoids both. Values agree up to rounding.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .hooks import recording

ROUNDING = 1e-5  # tolerance, relative to a site's largest absolute value

_pack: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight  # its type stub is wrong


@dataclass(frozen=True)
class _Step:
    """A convolution, and the ReLU applied directly to its output, if any."""

    conv: nn.Conv2d
    relu: nn.ReLU | None
    shape: torch.Size  # of the convolution's input


@contextmanager
def fused(
    module: nn.Module, sites: Mapping[str, tuple[str, ...]], probe: Tensor, batch: int
) -> Iterator[bool]:
    """Context manager that fuses convolutions for forward passes on a CPU without gradients.

    `probe` is one input, and `batch` the batch size to pack for. One forward pass over the probe
    finds which ReLU follows which convolution; a second one checks that the activations at all
    sites are unchanged up to rounding. If they are not, or if oneDNN is unavailable, the network
    stays unchanged. Yields whether convolutions are fused. A convolution that is itself a site,
    or has a forward hook, keeps its ReLU separate. The network is restored on exit.
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
    """Every plain convolution that is called once before the last site, with its ReLU."""
    site_names = {name for names in sites.values() for name in names}
    outputs: dict[nn.Conv2d, list[tuple[torch.Size, Tensor]]] = {}
    inputs: dict[nn.ReLU, list[Tensor]] = {}
    handles = []

    def record_conv(conv: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        outputs.setdefault(conv, []).append((args[0].shape, output))

    def record_relu(relu: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(relu, nn.ReLU)
        inputs.setdefault(relu, []).append(args[0])

    hooked = {n for n, m in module.named_modules() if m._forward_hooks or m._forward_pre_hooks}
    name_of = {m: n for n, m in module.named_modules()}
    try:
        for part in module.modules():
            if type(part) is nn.Conv2d and part.padding_mode == "zeros":
                handles.append(part.register_forward_hook(record_conv))
            elif type(part) is nn.ReLU:
                handles.append(part.register_forward_pre_hook(record_relu))
        with recording(module, sites) as forward:
            forward(probe)
    finally:
        for handle in handles:
            handle.remove()
    steps = []
    for conv, calls in outputs.items():
        if len(calls) != 1 or isinstance(conv.padding, str) or conv.weight.dtype != torch.float32:
            continue
        shape, output = calls[0]
        relus = [relu for relu, args in inputs.items() if len(args) == 1 and args[0] is output]
        unobserved = name_of[conv] not in site_names | hooked
        steps.append(_Step(conv, relus[0] if len(relus) == 1 and unobserved else None, shape))
    return steps


def _fuse(step: _Step, batch: int) -> None:
    conv, activation = step.conv, "relu" if step.relu else "none"
    geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
    with torch.inference_mode():
        packed = _pack(conv.weight.to_mkldnn(), *geometry, (batch, *step.shape[1:]))

    def forward(x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, packed, conv.bias, *geometry, activation, [], ""
        )
        return out

    _replace(conv, forward)
    if step.relu:
        _replace(step.relu, lambda x: x)


def _replace(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
    """Shadow the class's `forward` with an instance attribute, which `_undo` deletes."""
    module.forward = forward


def _undo(steps: list[_Step]) -> None:
    for step in steps:
        for part in (step.conv, step.relu):
            if part is not None:
                part.__dict__.pop("forward", None)
