"""Record named sites of a network, without touching it: own handles only, gone afterwards."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tendril.data.errors import SubjectError, TendrilError

from ..subjects.subject import Subject, site_modules

INPUT = ":in"  # marks the name of a module whose input is meant, not its output

Forward = Callable[[Tensor], dict[str, Tensor]]


class _Stop(BaseException):
    """Ends a forward pass, as all is seen or a module is in the way of it. No Exception, so
    that no network catches it on its way."""

    def __init__(self, error: SubjectError | None = None) -> None:
        self.error = error


@dataclass(frozen=True)
class SiteShape:
    """D of a site's vectors, and the rows and columns of the map they are taken from."""

    width: int
    grid: tuple[int, int]


@contextmanager
def recording(module: nn.Module, sites: Mapping[str, tuple[str, ...]]) -> Iterator[Forward]:
    """Within the body, `forward(x)` gives the activations at each site.

    A site is the outputs of its modules, concatenated over channels; of a module marked `:in`
    its first input. The pass stops after the last one wanted. What is recorded is a copy
    wherever the pass goes on, since a later in-place operation would alter it. Gradients flow
    if they are enabled. The network called in the body by itself, and not through `forward`,
    runs whole and is not recorded. Several threads may call `forward` at once.
    Raises SubjectError where a module is not there, is not called, or is called twice before
    the pass stops; `describe_sites` also finds those that would be called again after it.
    """
    wanted = _submodules(module, sites)
    assert wanted, "a recording of no sites"
    passes = threading.local()  # what the pass of this thread has seen; no `seen`, no pass

    def record(name: str, acts: object) -> None:
        seen: dict[str, Tensor] | None = getattr(passes, "seen", None)
        if seen is None:
            return
        if name in seen:
            raise _Stop(SubjectError(_called_often(name, "twice or more")))
        tensor = _first_tensor(name, acts)
        last = len(seen) + 1 == len(wanted)
        seen[name] = tensor if last else tensor.clone()
        if last:
            raise _Stop

    def forward(x: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        passes.seen = seen
        try:
            module(x)
        except _Stop as stop:
            if stop.error:
                raise stop.error from None
            return {site: _join([seen[name] for name in names]) for site, names in sites.items()}
        else:
            silent = next(name for name in wanted if name not in seen)
            raise SubjectError(_never_called(silent))
        finally:
            passes.seen = None

    handles = []
    try:
        for name, submodule in wanted.items():
            handles.append(_listen(name, submodule, record))
        yield forward
    finally:
        for handle in handles:
            handle.remove()


def _listen(name: str, module: nn.Module, record: Callable[[str, object], None]) -> RemovableHandle:
    """A hook at the end of a module that a name speaks of."""
    if not name.endswith(INPUT):
        return module.register_forward_hook(lambda _module, _inputs, output: record(name, output))

    def before(_module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        record(name, inputs or tuple(named.values()))

    return module.register_forward_pre_hook(before, with_kwargs=True)


@torch.no_grad()
def describe_sites(subject: Subject, names: Sequence[str]) -> dict[str, SiteShape]:
    """Width and grid of each site, from one whole pass over a grey image.

    Raises UnknownSiteError, and SubjectError where the network fails on such an image or a
    module is not called exactly once: a ReLU that a block uses twice has no single activation.
    """
    sites = site_modules(subject, names)
    calls: Counter[str] = Counter()
    shapes: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def count(_module: nn.Module, _inputs: object, output: object) -> None:
            calls[name] += 1
            shapes[name] = _first_tensor(name, output).to("meta")

        return count

    device = next((p.device for p in subject.module.parameters()), torch.device("cpu"))
    grey_BCHW = torch.full((1, 3, subject.input_size, subject.input_size), 0.5, device=device)
    handles = []
    try:
        for name, submodule in _submodules(subject.module, sites).items():
            handles.append(submodule.register_forward_hook(hook(name)))
        subject.module(subject.preprocess(grey_BCHW))
    except TendrilError:
        raise
    except Exception as error:  # whatever a network of somebody's raises is told, with its kind
        raise SubjectError(
            f"{subject.name} fails on an image of {subject.input_size} pixels "
            f"({type(error).__name__}: {str(error)[:200]}); give its input size and preprocessing "
            "with subject_from_module(module, input_size=..., preprocess=...)."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    for name in (name for names in sites.values() for name in names):
        if calls[name] == 0:
            raise SubjectError(_never_called(name))
        if calls[name] > 1:
            raise SubjectError(_called_often(name, f"{calls[name]} times"))
    grids = {s: as_grid(_join([shapes[name] for name in names])) for s, names in sites.items()}
    return {s: SiteShape(g.shape[3], (g.shape[1], g.shape[2])) for s, g in grids.items()}


def as_grid(acts: Float[Tensor, "b ..."]) -> Float[Tensor, "b h w d"]:
    """Activations as a map of vectors: [B, C, H, W] -> [B, H, W, C]; tokens [B, T, D] ->
    [B, T, 1, D]; one vector an input [B, D] -> [B, 1, 1, D]. Views, no copies."""
    if acts.ndim == 4:
        return acts.permute(0, 2, 3, 1)
    if acts.ndim == 3:
        return acts[:, :, None, :]
    if acts.ndim == 2:
        return acts[:, None, None, :]
    raise SubjectError(
        f"a site gives [B, C, H, W], [B, T, D] or [B, D], and not {list(acts.shape)}; "
        "choose another one."
    )


def _submodules(module: nn.Module, sites: Mapping[str, tuple[str, ...]]) -> dict[str, nn.Module]:
    wanted = dict.fromkeys(name for names in sites.values() for name in names)
    modules = dict(module.named_modules(remove_duplicate=False))
    missing = [name for name in wanted if name.removesuffix(INPUT) not in modules]
    if missing:
        raise SubjectError(f"the network has no module {missing[0]!r}; name one that it has.")
    return {name: modules[name.removesuffix(INPUT)] for name in wanted}


def _first_tensor(name: str, output: object) -> Tensor:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise SubjectError(
            f"module {name!r} gives a {type(output).__name__} and no tensor; choose another site."
        )
    return output


def _join(parts: Sequence[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), dim=-1 if parts[0].ndim == 3 else 1)  # tokens come as [B, T, D]


def _never_called(name: str) -> str:
    return f"module {name!r} is not called in a forward pass; choose a site that is."


def _called_often(name: str, how: str) -> str:
    block = name.rpartition(".")[0]
    return (
        f"module {name!r} is called {how} in one forward pass, so it has no single activation; "
        f"choose {f'the block it belongs to, {block!r},' if block else 'another site'} instead."
    )
