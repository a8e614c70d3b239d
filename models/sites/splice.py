"""Put something else in the place of a site, and see what the network still knows.

Everything is one pass to read the site and one for each thing put there, so a site may be
several modules, none of whose outputs feeds another (the branches of an inception block).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from tendril.data.errors import SubjectError

from ..dictionaries.sae import SAE
from .hooks import INPUT, as_grid, recording

CLEAN = "clean"
VECTORS = 8192  # given to a dictionary at a time: latents of many positions take memory
IGNORED = -100  # a label that does not count, as torch's cross_entropy has it

Substitute = Callable[[Tensor], Tensor]  # vectors [n, d] -> vectors [n, d]
Batch = tuple[Tensor, Tensor | None]  # what the network takes, and the right classes


@final
@dataclass(frozen=True)
class Answers:
    """Sums over the answers of a network: how many there were, how many had the right class
    first or among the first five, their cross-entropy in nats, and the squared distance of
    what was put at the site from what was there."""

    count: int = 0
    top1: int = 0
    top5: int = 0
    loss: float = 0.0
    missed: float = 0.0

    def __add__(self, other: "Answers") -> "Answers":
        mine, theirs = vars(self), vars(other)
        return Answers(**{name: mine[name] + theirs[name] for name in mine})

    def figures(self) -> dict[str, float]:
        """Accuracies as shares, cross-entropy as a mean."""
        return {
            "top1": self.top1 / self.count,
            "top5": self.top5 / self.count,
            "cross_entropy": self.loss / self.count,
        }


@final
class Splice:
    """A network whose site can be read and set. Made by `splicing`."""

    def __init__(
        self,
        record: Callable[[Any], dict[str, Tensor]],
        run: Callable[[Any, Mapping[str, Tensor]], Tensor],
    ) -> None:
        self._record, self._run = record, run

    def read(self, x: Any) -> dict[str, Tensor]:
        """The outputs of the site's modules, each [B, C, H, W], [B, T, D] or [B, D]."""
        return self._record(x)

    def run(self, x: Any, parts: Mapping[str, Tensor]) -> Float[Tensor, "*n v"]:
        """The network's logits with those in their place; with none, as it is."""
        return self._run(x, parts)


@contextmanager
def splicing(module: nn.Module, names: tuple[str, ...], logits: str = "") -> Iterator[Splice]:
    """Within the body, read the site that the modules `names` make up, and set it.

    `logits` names the module that gives them; empty, it is the network itself. Of a module
    marked `:in` the input is set, in place, so that whatever else reads it sees the same: a
    residual stream is what a block's norm takes and also what the block adds to. The network
    called by itself is not altered; afterwards its hooks are those it had before, also when
    the body raises. One thread at a time. Raises SubjectError as `recording` does.
    """
    given: dict[str, Tensor] = {}
    modules = dict(module.named_modules(remove_duplicate=False))

    def hook(name: str) -> Callable[[nn.Module, object, object], object]:
        def replace(_module: nn.Module, _inputs: object, output: object) -> object:
            if name not in given:
                return None
            there = first_tensor(output)
            # a copy, since a later operation in place would alter what was given; laid out in
            # memory as what it replaces, so that the same values give the same answers
            return with_first(output, torch.empty_like(there).copy_(given[name]))

        return replace

    def before(name: str) -> Callable[[nn.Module, tuple[object, ...], dict[str, object]], None]:
        def replace(
            _module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]
        ) -> None:
            if name in given:
                first_tensor(inputs or tuple(named.values())).copy_(given[name])

        return replace

    handles = []
    with (
        recording(module, {name: (name,) for name in names}) as record,
        recording(module, {logits: (logits,)}) if logits else _whole(module) as answer,
    ):

        def run(x: Any, parts: Mapping[str, Tensor]) -> Tensor:
            given.update(parts)
            try:
                return answer(x)[logits]
            finally:
                given.clear()

        try:
            for name in names:
                there = modules[name.removesuffix(INPUT)]
                handles.append(
                    there.register_forward_pre_hook(before(name), with_kwargs=True)
                    if name.endswith(INPUT)
                    else there.register_forward_hook(hook(name))
                )
            yield Splice(record, run)
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _whole(module: nn.Module) -> Iterator[Callable[[Any], dict[str, Tensor]]]:
    """The network's own output, in the form of `recording`."""
    yield lambda x: {"": first_tensor(module(x))}


def first_tensor(output: Any) -> Tensor:
    """The tensor that a module or a network gives: its output, the `logits` of it, or the first
    of a tuple. Raises SubjectError where there is none."""
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return first_tensor(output.logits)
    if isinstance(output, tuple | list) and output:
        return first_tensor(output[0])
    raise SubjectError(
        f"the network gives a {type(output).__name__} and no tensor; choose another subject."
    )


def with_first(output: object, tensor: Tensor) -> object:
    """What a module gave, its (first) tensor replaced."""
    if isinstance(output, tuple | list):
        return type(output)([with_first(output[0], tensor), *output[1:]])
    return tensor


def to_vectors(parts: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
    """The site's vectors, one a position, its modules' outputs side by side."""
    joined = torch.cat([as_grid(part) for part in parts.values()], dim=3)
    return joined.reshape(-1, joined.shape[3])


def to_parts(vectors_ND: Float[Tensor, "n d"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: vectors as outputs of the site's modules, in the shapes of `like`."""
    grids = {name: as_grid(part) for name, part in like.items()}
    pieces = torch.split(vectors_ND, [grid.shape[3] for grid in grids.values()], dim=1)
    parts = {}
    for (name, grid), piece in zip(grids.items(), pieces, strict=True):
        shaped = piece.reshape(grid.shape).to(grid.dtype)
        four = like[name].ndim == 4
        parts[name] = shaped.permute(0, 3, 1, 2) if four else shaped.reshape(like[name].shape)
    return parts


@final
class Reconstruction:
    """Vectors as a dictionary gives them back, a few thousand at a time. Counts the vectors, and
    the latents that were on."""

    def __init__(self, dictionary: SAE) -> None:
        self._dictionary = dictionary
        self.vectors = self.on = 0

    def __call__(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        given = []
        for chunk_ND in torch.split(x_ND.float(), VECTORS):
            z_NS = self._dictionary.encode(chunk_ND)
            self.vectors += len(z_NS)
            self.on += int(torch.count_nonzero(z_NS))
            given.append(self._dictionary.decode(z_NS))
        return torch.cat(given)


def ablating(mean_D: Float[Tensor, " d"] | None = None) -> Substitute:
    """The same vector at every position: the mean, or zero."""
    if mean_D is None:
        return torch.zeros_like
    return lambda x_ND: mean_D.to(x_ND).expand_as(x_ND)


@torch.inference_mode()
def site_mean(
    module: nn.Module, names: tuple[str, ...], inputs: Iterable[Any]
) -> Float[Tensor, " d"]:
    """Mean of a site's vectors over all positions of batches of inputs, float64 sums."""
    total, count = torch.zeros(0), 0
    with splicing(module, names) as splice:
        for x in inputs:
            x_ND = to_vectors(splice.read(x)).double()
            total = x_ND.sum(dim=0) if count == 0 else total + x_ND.sum(dim=0)
            count += len(x_ND)
    return (total / count).float()


@torch.inference_mode()
def splice_answers(
    module: nn.Module,
    names: tuple[str, ...],
    substitutes: Mapping[str, Substitute],
    batches: Iterable[Batch],
    logits: str = "",
) -> dict[str, Answers]:
    """What the network answers as it is (`clean`), and with each substitute at the site.

    `batches` are pairs of what the network takes and the right classes: [B] for images, or
    [B, T] for a language model's next tokens, -100 where none is asked for; None stands for
    the network's own first answers. Logits are [B, V] or [B, T, V].
    """
    sums = {name: Answers() for name in (CLEAN, *substitutes)}
    with splicing(module, names, logits) as splice:
        for x, labels in batches:
            parts = splice.read(x)
            x_ND = to_vectors(parts)
            clean = splice.run(x, {})
            right = clean.argmax(dim=-1) if labels is None else labels
            sums[CLEAN] += _answers(clean, right)
            for name, substitute in substitutes.items():
                put_ND = substitute(x_ND)
                missed = float((x_ND.double() - put_ND).square().sum())
                answered = _answers(splice.run(x, to_parts(put_ND, parts)), right)
                sums[name] += answered + Answers(missed=missed)
    return sums


def recovered(clean: float, spliced: float, ablated: float) -> float | None:
    """(ablated - spliced) / (ablated - clean): 1 where the reconstruction is as good as what
    was there, 0 where it is as good as nothing; None where nothing is lost without the site.
    The same for a loss and for an accuracy."""
    return None if ablated == clean else (ablated - spliced) / (ablated - clean)


def _answers(logits: Float[Tensor, "*n v"], labels: Int[Tensor, "..."]) -> Answers:
    if logits.shape[:-1] != labels.shape:
        raise SubjectError(
            f"the network should give a score a class, {[*labels.shape, 'classes']}, and gives "
            f"{list(logits.shape)}; choose a subject that tells classes apart."
        )
    scores_NV, label_N = logits.flatten(0, -2).float(), labels.flatten().to(logits.device)
    scores_NV, label_N = scores_NV[label_N != IGNORED], label_N[label_N != IGNORED]
    first = scores_NV.topk(min(5, scores_NV.shape[1]), dim=1).indices == label_N[:, None]
    return Answers(
        count=len(label_N),
        top1=int(first[:, 0].sum()),
        top5=int(first.any(dim=1).sum()),
        loss=float(functional.cross_entropy(scores_NV, label_N, reduction="none").double().sum()),
    )
