"""Record named sites of a network, without touching it: own handles only, gone afterwards."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.errors import SubjectError

from .subjects.subject import Subject, site_modules

Forward = Callable[[Tensor], dict[str, Tensor]]


class _LastSiteSeen(BaseException):
    """Ends a forward pass. No Exception, so that no network catches it on the way."""


@dataclass(frozen=True)
class SiteShape:
    """D of a site's vectors, and the rows and columns of the map they are taken from."""

    width: int
    grid: tuple[int, int]


@contextmanager
def recording(module: nn.Module, sites: Mapping[str, tuple[str, ...]]) -> Iterator[Forward]:
    """Within the body, `forward(x)` gives the activations at each site.

    A site is the outputs of its modules, concatenated over channels (dimension 1). The pass
    stops after the last module wanted. What is recorded is a copy wherever the pass goes on,
    since a later in-place operation would alter it. Gradients flow if they are enabled.
    Raises SubjectError where a module is not there, is not called, or is called twice.
    """
    wanted = _submodules(module, sites)
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if name in seen:
                raise SubjectError(_called_often(name, "twice or more"))
            acts = _first_tensor(name, output)
            last = len(seen) + 1 == len(wanted)
            seen[name] = acts if last else acts.clone()
            if last:
                raise _LastSiteSeen

        return record

    def forward(x: Tensor) -> dict[str, Tensor]:
        seen.clear()
        try:
            module(x)
        except _LastSiteSeen:
            return {site: _join([seen[name] for name in names]) for site, names in sites.items()}
        finally:
            recorded = set(seen)
            seen.clear()
        silent = [name for name in wanted if name not in recorded]
        raise SubjectError(
            f"module {silent[0]!r} is not called in a forward pass; choose a site that is."
        )

    handles = []
    try:
        for name, submodule in wanted.items():
            handles.append(submodule.register_forward_hook(hook(name)))
        yield forward
    finally:
        for handle in handles:
            handle.remove()
        seen.clear()


@torch.no_grad()
def describe_sites(subject: Subject, names: Sequence[str]) -> dict[str, SiteShape]:
    """Width and grid of each site, from one whole pass over a grey image.

    Raises UnknownSiteError, and SubjectError for a module that is not called exactly once in
    a pass: a ReLU that a block uses twice has no single activation.
    """
    sites = site_modules(subject, names)
    wanted = _submodules(subject.module, sites)
    calls: Counter[str] = Counter()
    handles = [
        submodule.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, submodule in wanted.items()
    ]
    parameter = next(subject.module.parameters(), torch.zeros(()))
    grey = torch.full((1, 3, subject.input_size, subject.input_size), 0.5)
    image = subject.preprocess(grey.to(parameter.device))
    try:
        subject.module(image)
    finally:
        for handle in handles:
            handle.remove()
    for name in wanted:
        if calls[name] > 1:
            raise SubjectError(_called_often(name, f"{calls[name]} times"))
    with recording(subject.module, sites) as forward:
        shapes = {site: as_grid(acts).shape for site, acts in forward(image).items()}
    return {site: SiteShape(shape[3], (shape[1], shape[2])) for site, shape in shapes.items()}


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
    missing = [name for name in wanted if name not in modules]
    if missing:
        raise SubjectError(f"the network has no module {missing[0]!r}; name one that it has.")
    return {name: modules[name] for name in wanted}


def _first_tensor(name: str, output: object) -> Tensor:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise SubjectError(
            f"module {name!r} gives a {type(output).__name__} and no tensor; choose another site."
        )
    return output


def _join(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def _called_often(name: str, how: str) -> str:
    block = name.rpartition(".")[0]
    return (
        f"module {name!r} is called {how} in one forward pass, so it has no single activation; "
        f"choose {f'the block it belongs to, {block!r},' if block else 'another site'} instead."
    )
