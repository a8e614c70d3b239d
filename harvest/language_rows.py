"""Slices of contexts -> rows: run the language model, keep the chosen positions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Int64
from torch.nn import functional

from tendril.data.inputs.packing import NOBODY
from tendril.data.inputs.tokens import Contexts
from tendril.models.sites.hooks import recording
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.masks import Masks, no_masks
from tendril.models.subjects.subject import site_modules

from .loop import SliceRows
from .narrow import narrowed
from .sampling import draw_uniform


@final
@dataclass(frozen=True)
class TokenRule:
    """Which positions of a context become rows, and which of these rows are valid.

    With `all`, skipped positions (special tokens, the first `skip_first`) become invalid rows, so
    that the text can be recovered from the store. With a number, they are taken only if there
    are too few others.
    """

    count: int | Literal["all"]
    skip_special: bool
    skip_first: int
    seed: int

    def draw(
        self, contexts: Contexts, inputs: range
    ) -> tuple[Int64[np.ndarray, "b p"], np.ndarray]:
        """Positions of each context in ascending order, and whether each is valid, both [B, P]."""
        kept_BT = contexts.kept(inputs, self.skip_special, self.skip_first)
        length = kept_BT.shape[1]
        if self.count == "all":
            return np.tile(np.arange(length), (len(inputs), 1)), kept_BT
        drawn = []
        for index, kept_T in zip(inputs, kept_BT, strict=True):
            kept, skipped = np.flatnonzero(kept_T), np.flatnonzero(~kept_T)
            taken = min(self.count, len(kept))
            chosen = kept[draw_uniform(len(kept), taken, self.seed, index)]
            drawn.append(np.sort(np.concatenate([chosen, skipped[: self.count - taken]])))
        positions_BP = np.stack(drawn)
        return positions_BP, np.take_along_axis(kept_BT, positions_BP, axis=1)


def language_rows(
    subject: LanguageSubject,
    contexts: Contexts,
    sites: Sequence[str],
    rule: TokenRule,
    *,
    device: torch.device,
    dtype: str = "float32",
    masks: Masks = no_masks,
) -> Callable[[Sequence[range]], Iterator[SliceRows]]:
    """The harvesting loop's producer: takes slices of contexts, yields rows of every site.

    The network reads as many positions as the longest context of a slice has; the others are
    padding, whose rows are zero here, and not valid.
    """
    subject.module.to(device)
    modules = site_modules(subject, sites)

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        with recording(subject.module, modules) as forward:
            for inputs in slices:
                tokens_BT = np.array(contexts.tokens_BT[inputs.start : inputs.stop])
                documents_BT = np.array(contexts.documents_BT[inputs.start : inputs.stop])
                positions_BP, valid_BP = rule.draw(contexts, inputs)
                longest = int((documents_BT != NOBODY).sum(axis=1).max())
                with torch.inference_mode():  # not across a yield: it would apply to the caller
                    read_BT, of_BT = (
                        torch.from_numpy(part[:, :longest]).long().to(device)
                        for part in (tokens_BT, documents_BT)
                    )
                    acts = forward(read_BT, **masks(of_BT))
                    rest = tokens_BT.shape[1] - longest
                    rows = {
                        site: narrowed(_taken(_longer(acts[site], rest), positions_BP), dtype)
                        for site in sites
                    }
                of_text = {"token": tokens_BT, "document": documents_BT}
                if contexts.roles_BT is not None:
                    of_text["role"] = np.array(contexts.roles_BT[inputs.start : inputs.stop])
                contexts.release()  # so that memory does not grow with the text
                yield SliceRows(
                    inputs=inputs,
                    activations=rows,
                    columns={
                        "position": positions_BP.ravel(),
                        **{
                            name: np.take_along_axis(part_BT, positions_BP, 1).ravel()
                            for name, part_BT in of_text.items()
                        },
                    },
                    names=[f"context {i}" for i in inputs],
                    valid=valid_BP.ravel(),
                )

    return produce


def _longer(acts_BTD: torch.Tensor, positions: int) -> torch.Tensor:
    """Activations with zeros at further positions."""
    return functional.pad(acts_BTD, (0, 0, 0, positions)) if positions else acts_BTD


def _taken(acts_BTD: torch.Tensor, positions_BP: Int64[np.ndarray, "b p"]) -> torch.Tensor:
    """The vectors at some positions of each context, concatenated: [B P, D]."""
    if positions_BP.shape[1] == acts_BTD.shape[1]:
        return acts_BTD.flatten(0, 1)
    places_BP = positions_BP + np.arange(len(positions_BP))[:, None] * acts_BTD.shape[1]
    places_R = torch.from_numpy(places_BP.ravel()).to(acts_BTD.device)
    return acts_BTD.flatten(0, 1).index_select(0, places_R)
