"""Arguments that make a language model leave out padding, and read documents apart.

Whether a network takes them, and reads each document as if it were alone, is tried out before any
row is stored (`masks_for`).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from tendril.data.errors import SubjectError

from .language import LanguageSubject
from .transformers_networks import POSITIONS, one_line

Masks: TypeAlias = Callable[[Int64[Tensor, "b t"]], dict[str, Tensor]]
"""The document of each token, -1 for padding -> further arguments of the network, by name."""
Run: TypeAlias = Callable[[Int64[Tensor, "b t"], dict[str, Tensor]], dict[str, Tensor]]
"""Tokens and further arguments -> activations [B, T, D] at each site."""

# Of what reading the documents together changes, the fraction that may be left; and the rounding,
# over the largest value of a row. First for float32, then for dtypes of 16 bits.
LEFT, ROUNDING = (0.01, 0.25), (1e-4, 2.0**-5)


def no_masks(documents_BT: Int64[Tensor, "b t"]) -> dict[str, Tensor]:
    """No further arguments: contexts are full, and read as a whole."""
    return {}


def padding_masks(documents_BT: Int64[Tensor, "b t"]) -> dict[str, Tensor]:
    """The attention mask that leaves out padding, which comes last. Positions count from 0 without
    further arguments."""
    return {"attention_mask": (documents_BT >= 0).long()}


def masks_for(
    subject: LanguageSubject, packing: Literal["alone", "apart"], tokens_T: Sequence[int], run: Run
) -> Masks:
    """The masks with which a network reads each document of a context as if it were alone.

    Each way is tried on `tokens_T`, one context of text, taken for one document, for two, and for
    one and padding. Raises SubjectError if with none of them the activations are those of the
    documents alone: some networks have no attention, or take no such masks.
    """
    ways = {
        "alone": (padding_masks, no_masks) if subject.kind == "causal" else (padding_masks,),
        "apart": (_by_position(subject), _by_pairs(subject)),
    }[packing]
    why = ""
    for way in ways:
        try:
            why = _difference(list(tokens_T), packing, way, run, subject.module)
        except (RuntimeError, IndexError, ValueError, TypeError, AttributeError) as error:
            why = f"it fails with them: {type(error).__name__}: {one_line(error)}"
        if not why:
            return way
    flag, instead = "--pad", "Leave it out"
    if packing == "apart":
        flag, instead = "--document-mask", "Pass --pad instead, or leave both out"
    raise SubjectError(
        f"{flag} needs a network that reads a document of a context as if it were alone; "
        f"{subject.name} does not ({why}). {instead}, or choose another model."
    )


def places_of(documents_BT: Int64[Tensor, "b t"]) -> Int64[Tensor, "b t"]:
    """The place of each token in its document's part of the context, from 0."""
    index_BT = torch.arange(documents_BT.shape[1], device=documents_BT.device).expand_as(
        documents_BT
    )
    first_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    first_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return index_BT - torch.where(first_BT, index_BT, 0).cummax(dim=1).values


def _by_position(subject: LanguageSubject) -> Masks:
    """Positions that begin anew with each document, from which transformers makes the masks of all
    kinds of causal attention, sliding windows included."""
    first = _first_position(subject.module)

    def masks(documents_BT: Int64[Tensor, "b t"]) -> dict[str, Tensor]:
        return {"position_ids": places_of(documents_BT) + first}

    return masks


def _by_pairs(subject: LanguageSubject) -> Masks:
    """The same positions, and a mask of pairs of tokens, [B, 1, T, T], which is added to the
    attention's logits."""
    first = _first_position(subject.module)
    dtype = next(p.dtype for p in subject.module.parameters() if p.is_floating_point())

    def masks(documents_BT: Int64[Tensor, "b t"]) -> dict[str, Tensor]:
        same_BTT: Bool[Tensor, "b t t"] = documents_BT[:, :, None] == documents_BT[:, None, :]
        if subject.kind == "causal":
            same_BTT = same_BTT.tril()
        mask_BTT = torch.zeros(same_BTT.shape, dtype=dtype, device=documents_BT.device)
        mask_BTT = mask_BTT.masked_fill(~same_BTT, torch.finfo(dtype).min)
        positions_BT = places_of(documents_BT) + first
        return {"attention_mask": mask_BTT[:, None], "position_ids": positions_BT}

    return masks


def _first_position(module: nn.Module) -> int:
    """The number of the first position: RoBERTa and others count from `padding_idx` + 1."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and POSITIONS.fullmatch(name):
            return 0 if part.padding_idx is None else part.padding_idx + 1
    return 0


def _difference(
    tokens: list[int], packing: Literal["alone", "apart"], masks: Masks, run: Run, module: nn.Module
) -> str:
    """How activations with masks differ from those of documents alone, in words; empty if they do
    not, up to rounding."""
    one = next(p for p in module.parameters() if p.is_floating_point())
    wide = int(one.dtype != torch.float32)
    tokens_BT = torch.tensor([tokens], device=one.device)
    for documents in _trials(len(tokens), packing):
        documents_BT = torch.tensor([documents], device=one.device)
        masked = run(tokens_BT, masks(documents_BT))
        together = run(tokens_BT, {})
        for number in sorted(set(documents) - {-1}):
            at = slice(documents.index(number), documents.index(number) + documents.count(number))
            alone = run(tokens_BT[:, at], {})
            for site, alone_BTD in alone.items():
                off_T, allowed_T = (
                    (acts[site][0, at].float() - alone_BTD[0].float()).abs().amax(-1)
                    for acts in (masked, together)
                )
                rounding_T = ROUNDING[wide] * alone_BTD[0].float().abs().amax(-1)
                worst = float((off_T / rounding_T.clamp_min(1e-30)).max()) * ROUNDING[wide]
                if (off_T > rounding_T).any() and off_T.max() > LEFT[wide] * allowed_T.max():
                    return f"values at {site} differ by {worst:.2g} of the largest in a row"
    return ""


def _trials(length: int, packing: Literal["alone", "apart"]) -> Iterator[list[int]]:
    """Documents of a context of `length` tokens."""
    some = max(length * 3 // 4, 1)
    yield [0] * length
    yield [0] * some + [-1] * (length - some)
    if packing == "apart":
        yield [0] * some + [1] * (length - some)
        yield [0] * (length - some) + [1] * some
