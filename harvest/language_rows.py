"""Slices of contexts -> rows: run the language model, keep the chosen positions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Int64

from tendril.data.inputs.tokens import Contexts
from tendril.models.sites.hooks import recording
from tendril.models.subjects.language import LanguageSubject
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
) -> Callable[[Sequence[range]], Iterator[SliceRows]]:
    """The harvesting loop's producer: takes slices of contexts, yields rows of every site."""
    subject.module.to(device)
    modules = site_modules(subject, sites)

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        with recording(subject.module, modules) as forward:
            for inputs in slices:
                tokens_BT = np.array(contexts.tokens_BT[inputs.start : inputs.stop])
                positions_BP, valid_BP = rule.draw(contexts, inputs)
                with torch.inference_mode():  # not across a yield: it would apply to the caller
                    acts = forward(torch.from_numpy(tokens_BT).long().to(device))
                    rows = {
                        site: narrowed(_taken(acts[site], positions_BP), dtype) for site in sites
                    }
                documents_BT = np.asarray(contexts.documents_BT[inputs.start : inputs.stop])
                yield SliceRows(
                    inputs=inputs,
                    activations=rows,
                    columns={
                        "position": positions_BP.ravel(),
                        "token": np.take_along_axis(tokens_BT, positions_BP, 1).ravel(),
                        "document": np.take_along_axis(documents_BT, positions_BP, 1).ravel(),
                    },
                    names=[f"context {i}" for i in inputs],
                    valid=valid_BP.ravel(),
                )

    return produce


def _taken(acts_BTD: torch.Tensor, positions_BP: Int64[np.ndarray, "b p"]) -> torch.Tensor:
    """The vectors at some positions of each context, concatenated: [B P, D]."""
    if positions_BP.shape[1] == acts_BTD.shape[1]:
        return acts_BTD.flatten(0, 1)
    places_BP = positions_BP + np.arange(len(positions_BP))[:, None] * acts_BTD.shape[1]
    places_R = torch.from_numpy(places_BP.ravel()).to(acts_BTD.device)
    return acts_BTD.flatten(0, 1).index_select(0, places_R)
