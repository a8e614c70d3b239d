"""Feature absorption on planted trees of features: does a latent fail where a rarer feature is on?

A child feature is on only where its parent is. A sparse dictionary can save a latent by writing the
parent's direction into the child's latent, and then the parent's own latent stays off where the
child is on. The main latent of a feature is the one that tells best where it is on. Of the rows in
which a parent is on,

    missed    the parent's main latent is off; apart for rows with a child on, and without
    absorbed  it is off, and the main latents of the children that are on write at least half of
              what the parent adds: sum_l z_l <d_l, u> >= c / 2, with u the parent's direction and c
              its coordinate there

The absorption rate is the fraction that is absorbed. A latent that is main for both parent and
child counts as the parent's. Rows without a child are the control: nothing can be absorbed there.

Source: Chanin et al., A is for absorption (2409.14507), for first letters of tokens, where the
truth is a probe; SAEBench (2503.09532). Here it is planted, and the threshold of a half is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from .sparse_probing import Columns

HALF = 0.5
FEWEST_ROWS = 20  # with a parent on, below which it is left out


@final
@dataclass(frozen=True)
class PlantedRows:
    """The truth of some rows: the features that are on, their coordinates (0 in places that are
    left), and the unit directions of all features."""

    features_NK: Int64[np.ndarray, "n k"]
    coordinates_NK: Float[np.ndarray, "n k"]
    directions_FD: Float[np.ndarray, "f d"]

    def amounts(self, feature: int) -> Float64[np.ndarray, " n"]:
        """The coordinate of a feature in each row; 0 where it is off."""
        amount_NK = np.where(self.features_NK == feature, self.coordinates_NK, 0)
        return np.asarray(amount_NK.sum(axis=1, dtype=np.float64))

    def on(self, feature: int) -> Bool[np.ndarray, " n"]:
        """The rows in which a feature is on."""
        return np.asarray((self.features_NK == feature).any(axis=1))


@final
@dataclass(frozen=True)
class Absorption:
    """Fractions of the rows in which a parent is on; NaN over no rows. See the module."""

    parent: int
    rows: int
    rate: float
    missed_with_child: float
    missed_alone: float


def families_of(parents_F: Int64[np.ndarray, " f"]) -> dict[int, list[int]]:
    """The children of each feature that has some."""
    found: dict[int, list[int]] = {}
    for child, parent in enumerate(parents_F.tolist()):
        if parent >= 0:
            found.setdefault(parent, []).append(child)
    return found


def absorption(
    codes: Columns,
    decoder_SD: Float[np.ndarray, "s d"],
    truth: PlantedRows,
    main: Mapping[int, int],
    families: Mapping[int, Sequence[int]],
    judged_N: Bool[np.ndarray, " n"],
) -> list[Absorption]:
    """Absorption of each parent that has a main latent, on the rows judged.

    `main` are the main latents of features. Parents that are on in few of the rows are left out.
    """
    found = []
    for parent, children in families.items():
        rows = np.flatnonzero(judged_N & truth.on(parent))
        if parent not in main or len(rows) < FEWEST_ROWS:
            continue
        own = main[parent]
        off_M = codes.take(np.array([own]))[rows, 0] <= 0
        child_M, written_M = np.zeros(len(rows), bool), np.zeros(len(rows))
        for child in children:
            on_M = truth.on(child)[rows]
            child_M |= on_M
            latent = main.get(child, own)
            if latent != own and on_M.any():
                along = float(decoder_SD[latent] @ truth.directions_FD[parent])
                written_M += on_M * along * codes.take(np.array([latent]))[rows, 0]
        absorbed_M = off_M & child_M & (written_M >= HALF * truth.amounts(parent)[rows])
        found.append(
            Absorption(
                parent,
                len(rows),
                float(absorbed_M.mean()),
                float(off_M[child_M].mean()) if child_M.any() else float("nan"),
                float(off_M[~child_M].mean()) if (~child_M).any() else float("nan"),
            )
        )
    return found
