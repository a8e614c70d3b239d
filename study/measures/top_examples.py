"""The entries of the highest score of each latent, kept while a store streams by."""

from typing import final

import numpy as np
from jaxtyping import Float32, Float64, Int64


@final
class Best:
    """For each of S latents the `count` entries of the highest score met so far.

    An entry is a token on which the latent is on: its row of the store, the activation there and
    those of the tokens around it. Scores fall along the second axis; where a latent has fewer
    entries the rest is row -1, of score -inf. Of equal scores the one met first stays. Memory:
    S x count x (20 + 4 x window) bytes.
    """

    def __init__(self, latents: int, count: int, window: int) -> None:
        self.score_SN = np.full((latents, count), -np.inf)
        self.row_SN = np.full((latents, count), -1, np.int64)
        self.value_SN = np.zeros((latents, count), np.float32)
        self.acts_SNW = np.zeros((latents, count, window), np.float32)

    @property
    def count(self) -> int:
        """How many entries a latent may have."""
        return self.score_SN.shape[1]

    def candidates(
        self, latent_M: Int64[np.ndarray, " m"], score_M: Float64[np.ndarray, " m"]
    ) -> Int64[np.ndarray, " c"]:
        """Which of some entries may enter: above the lowest kept, and among the `count` highest
        of their latent. Ordered by latent, then by falling score; of equal ones, as they came."""
        above = np.flatnonzero(score_M > self.score_SN[latent_M, -1])
        above = above[np.lexsort((-score_M[above], latent_M[above]))]
        return above[place_within(latent_M[above]) < self.count]

    def add(
        self,
        latent_C: Int64[np.ndarray, " c"],
        score_C: Float64[np.ndarray, " c"],
        row_C: Int64[np.ndarray, " c"],
        value_C: Float32[np.ndarray, " c"],
        acts_CW: Float32[np.ndarray, "c w"],
    ) -> None:
        """Merge entries that `candidates` chose, in its order."""
        if not len(latent_C):
            return
        met, group_C = np.unique(latent_C, return_inverse=True)
        place_C, count = place_within(latent_C), self.count
        score = np.full((len(met), 2 * count), -np.inf)
        score[:, :count] = self.score_SN[met]
        score[group_C, count + place_C] = score_C
        chosen = np.argsort(-score, axis=1, kind="stable")[:, :count]
        self.score_SN[met] = np.take_along_axis(score, chosen, axis=1)
        latent, into = np.nonzero(chosen >= count)  # what is new, and where it goes
        origin = np.full((len(met), count), -1)
        origin[group_C, place_C] = np.arange(len(latent_C))
        new = origin[latent, chosen[latent, into] - count]
        kept = np.minimum(chosen, count - 1)
        for held, fresh in (
            (self.row_SN, row_C),
            (self.value_SN, value_C),
            (self.acts_SNW, acts_CW),
        ):
            order = kept[..., None] if held.ndim == 3 else kept
            moved = np.take_along_axis(held[met], order, axis=1)
            moved[latent, into] = fresh[new]
            held[met] = moved


def place_within(group_M: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """0, 1, 2 ... along each run of equal numbers."""
    places = np.arange(len(group_M))
    begins = np.flatnonzero(np.r_[True, group_M[1:] != group_M[:-1]]) if len(group_M) else places
    lengths = np.diff(np.r_[begins, len(group_M)])
    return places - np.repeat(begins, lengths)
