"""Replace the activations at a site and measure how the network's predictions change.

One forward pass reads the site, and one more runs for each replacement. A site may therefore be
several modules only if none of them feeds another (e.g. the branches of an inception block).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from tendril.data.device import float64
from tendril.data.errors import SubjectError

from ..dictionaries.sae import SAE
from .dimensions import image_size, is_image, layout_of, restored, standard, tokens_of
from .hooks import INPUT, as_grid, recording

CLEAN, ZERO, MEAN = "clean", "zero", "mean"  # conditions: unchanged, zero- and mean-ablated
BLOCK = 8192  # vectors encoded at a time, to bound the memory that latents take
IGNORED = -100  # label of positions without a prediction, as in torch's cross_entropy

Substitute = Callable[[Tensor], Tensor]  # vectors [n, d] -> vectors [n, d]
New = Callable[[str, Tensor], Tensor | None]  # a module's name, its tensor -> another, or None
Batch = tuple[Tensor, Tensor | None]  # input of the network, and target classes


@final
@dataclass(frozen=True)
class Answers:
    """Sums over a network's predictions, which `+` accumulates over batches.

    `count` predictions, of which `top1` and `top5` have the target class first and among the
    five most likely; `loss` is the summed cross-entropy in nats, `missed` the summed squared
    distance between original and replaced vectors.
    """

    count: int = 0
    top1: int = 0
    top5: int = 0
    loss: float = 0.0
    missed: float = 0.0

    def __add__(self, other: "Answers") -> "Answers":
        mine, theirs = vars(self), vars(other)
        return Answers(**{name: mine[name] + theirs[name] for name in mine})

    def figures(self) -> dict[str, float]:
        """Accuracies as fractions of `count`, and the mean cross-entropy in nats."""
        return {
            "top1": self.top1 / self.count,
            "top5": self.top5 / self.count,
            "cross_entropy": self.loss / self.count,
        }


@final
class Splice:
    """A network whose site can be read and replaced. Created by `splicing`."""

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
        """The network's logits with `parts` as the site's outputs; if empty, unchanged."""
        return self._run(x, parts)


@contextmanager
def splicing(module: nn.Module, names: tuple[str, ...], logits: str = "") -> Iterator[Splice]:
    """Context manager to read and replace the site made of the modules `names`.

    `logits` names the module that computes the logits; empty means the network's own output. For
    a module marked `:in` the input is overwritten in place, so that everything that reads it
    sees the new values: a block's norm and its residual connection read the same tensor. Calling
    the network itself inside the body is unaffected. Hooks are removed on exit, also after an
    exception. Not thread-safe. Raises SubjectError as `recording` does.
    """
    replacements: dict[str, Tensor] = {}
    seen: Any = None  # the network's input in this pass

    def replacement(name: str, original: Tensor) -> Tensor | None:
        if name not in replacements:
            return None
        return put_kept(module, name, original, replacements[name], seen)

    with (
        recording(module, {name: (name,) for name in names}) as record,
        _predicting(module, logits) as predict,
        replacing(module, names, replacement),
    ):

        def run(x: Any, parts: Mapping[str, Tensor]) -> Tensor:
            nonlocal seen
            seen = x
            replacements.update(parts)
            try:
                return predict(x)[logits]
            finally:
                replacements.clear()

        yield Splice(record, run)


@contextmanager
def replacing(module: nn.Module, names: Iterable[str], new: New) -> Iterator[None]:
    """Context manager in which `new(name, tensor)` takes the place of the output of each module in
    `names`, or of the input of one marked `:in`, which is overwritten in place; None leaves it.

    Tensors have the module's own layout. Hooks are removed on exit, also after an exception.
    """
    modules = dict(module.named_modules(remove_duplicate=False))

    def after(name: str) -> Callable[[nn.Module, object, object], object]:
        def replace(_module: nn.Module, _inputs: object, output: object) -> object:
            original = first_tensor(output)
            found = new(name, original)
            if found is None:
                return None
            # A copy, because a later in-place operation would change the caller's tensor. It keeps
            # the original's memory layout, so that equal values give bitwise equal logits.
            return with_first(output, torch.empty_like(original).copy_(found))

        return replace

    def before(name: str) -> Callable[[nn.Module, tuple[object, ...], dict[str, object]], None]:
        def replace(
            _module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]
        ) -> None:
            original = first_tensor(inputs or tuple(named.values()))
            found = new(name, original)
            if found is not None:
                original.copy_(found)

        return replace

    handles = []
    try:
        for name in names:
            part = modules[name.removesuffix(INPUT)]
            handles.append(
                part.register_forward_pre_hook(before(name), with_kwargs=True)
                if name.endswith(INPUT)
                else part.register_forward_hook(after(name))
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def kept_of(root: nn.Module, name: str, acts: Tensor, x: object) -> Tensor:
    """A view of the activations of a module that are read, as `recording` gives them: a map
    [B, C, H, W], tokens [B, T, D] or vectors [B, D]. `x` is the input of the network `root`."""
    if not is_image(x):
        return acts
    part = root.get_submodule(name.removesuffix(INPUT))
    acts = standard(acts, layout_of(name, part, root, acts.shape, image_size(x)))
    return tokens_of(root).kept(name, acts, image_size(x)) if acts.ndim == 3 else acts


def put_kept(root: nn.Module, name: str, acts: Tensor, kept: Tensor, x: object) -> Tensor:
    """Inverse of `kept_of`: activations in the module's own layout. Tokens that are not read stay
    as they are in `acts`."""
    if not is_image(x):
        return kept
    part = root.get_submodule(name.removesuffix(INPUT))
    layout = layout_of(name, part, root, acts.shape, image_size(x))
    tokens = tokens_of(root)
    if len(layout) == 3 and tokens.keep != "all":
        kept = tokens.put(name, standard(acts, layout), kept, image_size(x))
    return restored(kept, layout)


def _predicting(
    module: nn.Module, logits: str
) -> AbstractContextManager[Callable[[Any], dict[str, Tensor]]]:
    """The output of the module that computes the logits; the network's own if it is empty."""
    if logits:
        return recording(module, {logits: (logits,)}, all_tokens=True)
    return _whole(module)


@contextmanager
def _whole(module: nn.Module) -> Iterator[Callable[[Any], dict[str, Tensor]]]:
    """The network's own output, with the interface of `recording`."""
    yield lambda x: {"": first_tensor(module(x))}


def first_tensor(output: Any) -> Tensor:
    """The tensor in an output: the output itself, its `logits`, or the first of a tuple.

    Raises SubjectError if there is none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return first_tensor(output.logits)
    if isinstance(output, tuple | list) and output:
        return first_tensor(output[0])
    raise SubjectError(
        f"the network's output must be the logits of classes; got a {type(output).__name__}. "
        "Choose a subject with a classifier."
    )


def with_first(output: object, tensor: Tensor) -> object:
    """A module's output with its (first) tensor replaced."""
    if isinstance(output, tuple | list):
        return type(output)([with_first(output[0], tensor), *output[1:]])
    return tensor


def to_vectors(parts: Mapping[str, Tensor]) -> Float[Tensor, "n d"]:
    """The site's vectors, one per position, with the modules' outputs concatenated."""
    joined = torch.cat([as_grid(part) for part in parts.values()], dim=3)
    return joined.reshape(-1, joined.shape[3])


def to_parts(vectors_ND: Float[Tensor, "n d"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `to_vectors`: split vectors into module outputs with the shapes of `like`."""
    grids = {name: as_grid(part) for name, part in like.items()}
    blocks = torch.split(vectors_ND, [grid.shape[3] for grid in grids.values()], dim=1)
    parts = {}
    for (name, grid), block_ND in zip(grids.items(), blocks, strict=True):
        shaped = block_ND.reshape(grid.shape).to(grid.dtype)
        is_map = like[name].ndim == 4
        parts[name] = shaped.permute(0, 3, 1, 2) if is_map else shaped.reshape(like[name].shape)
    return parts


@final
class Reconstruction:
    """Substitute x_hat = decode(encode(x)), computed in blocks of vectors.

    Counts the vectors (`vectors`) and the active latents (`on`); their ratio is L0.
    """

    def __init__(self, dictionary: SAE) -> None:
        self._dictionary = dictionary
        self.vectors = self.on = 0

    def __call__(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        blocks = []
        for block_ND in torch.split(x_ND.float(), BLOCK):
            z_NS = self._dictionary.encode(block_ND)
            self.vectors += len(z_NS)
            self.on += int(torch.count_nonzero(z_NS))
            blocks.append(self._dictionary.decode(z_NS))
        return torch.cat(blocks)


def ablating(mean_D: Float[Tensor, " d"] | None = None) -> Substitute:
    """Substitute one vector at every position: `mean_D` (mean ablation), or zero by default."""
    if mean_D is None:
        return torch.zeros_like
    return lambda x_ND: mean_D.to(x_ND).expand_as(x_ND)


@torch.inference_mode()
def site_mean(
    module: nn.Module, names: tuple[str, ...], inputs: Iterable[Any]
) -> Float[Tensor, " d"]:
    """Mean of a site's vectors over all positions of all inputs, accumulated in float64."""
    total, count = torch.zeros(0), 0
    with splicing(module, names) as splice:
        for x in inputs:
            x_ND = float64(to_vectors(splice.read(x)))
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
    """Sums over the network's predictions, unchanged (`clean`) and with each substitute.

    `batches` are pairs of an input and its target classes: [B] for images, or [B, T] for the
    next tokens of a language model, where -100 marks positions to ignore. None takes the
    network's own most likely classes as targets. Logits are [B, V] or [B, T, V]. Raises
    SubjectError if their shape does not fit the targets.
    """
    sums = {name: Answers() for name in (CLEAN, *substitutes)}
    with splicing(module, names, logits) as splice:
        for x, labels in batches:
            parts = splice.read(x)
            x_ND = to_vectors(parts)
            clean = splice.run(x, {})
            targets = clean.argmax(dim=-1) if labels is None else labels
            sums[CLEAN] += _answers(clean, targets)
            for name, substitute in substitutes.items():
                replaced_ND = substitute(x_ND)
                missed = float((float64(x_ND) - float64(replaced_ND)).square().sum())
                answers = _answers(splice.run(x, to_parts(replaced_ND, parts)), targets)
                sums[name] += answers + Answers(missed=missed)
    return sums


def recovered(clean: float, spliced: float, ablated: float) -> float | None:
    """Loss recovered, or accuracy recovered: (ablated - spliced) / (ablated - clean).

    1 if the reconstruction is as good as the original activations, 0 if it is as bad as the
    ablation; None if the ablation changes nothing. The formula is the same for a mean loss and
    for an accuracy. Source: Rajamanoharan et al. (2404.16014), who ablate with zeros.
    """
    return None if ablated == clean else (ablated - spliced) / (ablated - clean)


def _answers(logits: Float[Tensor, "*n v"], labels: Int[Tensor, "..."]) -> Answers:
    if logits.shape[:-1] != labels.shape:
        raise SubjectError(
            f"the network's output must have shape {[*labels.shape, 'classes']}; got "
            f"{list(logits.shape)}. Choose a subject that classifies its inputs."
        )
    scores_NV, label_N = logits.flatten(0, -2).float(), labels.flatten().to(logits.device)
    scores_NV, label_N = scores_NV[label_N != IGNORED], label_N[label_N != IGNORED]
    first = scores_NV.topk(min(5, scores_NV.shape[1]), dim=1).indices == label_N[:, None]
    return Answers(
        count=len(label_N),
        top1=int(first[:, 0].sum()),
        top5=int(first.any(dim=1).sum()),
        loss=float(float64(functional.cross_entropy(scores_NV, label_N, reduction="none")).sum()),
    )
