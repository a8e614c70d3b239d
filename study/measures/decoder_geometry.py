"""Firing frequencies and decoder rows of a dictionary, as signs of manifolds.

These are signs and no proof: many latents of one manifold fire about equally often and point in
similar directions, and so do many features that happen to be alike.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from .allocation import log_slope

RESAMPLES = 200
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
NEAREST = 2
"""Neighbours that the local dimension is estimated from."""
CANDIDATES = 8
COINCIDE = 1e-9
"""Unit rows this close are one direction."""
MOST_DIRECTIONS = 16_384
"""Random directions that are drawn for a control, at most."""
BLOCK = 256


@final
@dataclass(frozen=True)
class FiringSlope:
    """The slope of log firing frequency against log rank, over ranks `first` to `last`.

    error: the standard deviation of the slope when the latents are drawn anew with replacement
    """

    slope: float
    error: float
    first: int
    last: int


def firing_slope(
    frequency_S: Float[np.ndarray, " s"], first: int, last: int = 0, seed: int = 0
) -> FiringSlope | None:
    """The slope over ranks `first` to `last` (0: the last that fires); None for under 10 ranks."""
    falling = np.sort(frequency_S[frequency_S > 0])[::-1]
    last = min(last or len(falling), len(falling))
    if last - first < 9:
        return None
    ranks = np.arange(first, last + 1, dtype=np.float64)

    def slope(values: np.ndarray) -> float:
        return log_slope(ranks, values[first - 1 : last]).slope

    rng = np.random.default_rng(seed)
    drawn = [slope(np.sort(rng.choice(falling, len(falling)))[::-1]) for _ in range(RESAMPLES)]
    return FiringSlope(slope(falling), float(np.std(drawn)), first, last)


@final
@dataclass(frozen=True)
class Neighbours:
    """Of each decoder row, the most similar other row.

    cosine_S:  its cosine
    dimension: the local dimension by the two nearest neighbours (Facco and others, 2017):
               d = S / sum_i ln(r2_i / r1_i) with r the distances of unit rows to the nearest and
               the next; NaN where rows coincide
    """

    cosine_S: Float[np.ndarray, " s"]
    dimension: float

    def quantiles(self) -> dict[str, float]:
        """Quantiles of the cosines by level."""
        return {
            f"{level:g}": round(float(np.quantile(self.cosine_S, level)), 4) for level in QUANTILES
        }


def neighbours(rows_SD: Float[np.ndarray, "s d"]) -> Neighbours | None:
    """The neighbours of unit rows; None for fewer than three."""
    if len(rows_SD) < 3:
        return None
    unit_SD = rows_SD / np.maximum(np.linalg.norm(rows_SD, axis=1, keepdims=True), 1e-30)
    rough_SD = unit_SD.astype(np.float32)  # finds candidates; their distances are exact
    distances = []
    for start in range(0, len(unit_SD), BLOCK):
        cosine = rough_SD[start : start + BLOCK] @ rough_SD.T
        places = np.arange(len(cosine))
        cosine[places, start + places] = -2
        some = min(CANDIDATES, len(unit_SD) - 1)
        near_BC = np.argpartition(cosine, -some, axis=1)[:, -some:]
        apart_BCD = unit_SD[near_BC] - unit_SD[start : start + BLOCK, None]
        distances.append(np.sort(np.linalg.norm(apart_BCD, axis=2), axis=1)[:, :NEAREST])
    distance_S2 = np.concatenate(distances)
    apart = distance_S2[:, 0] > COINCIDE
    ratios = np.log(distance_S2[apart, 1] / distance_S2[apart, 0])
    total = float(ratios.sum())
    dimension = float(apart.sum()) / total if total > 0 and apart.sum() > len(apart) / 2 else np.nan
    return Neighbours(1 - distance_S2[:, 0] ** 2 / 2, dimension)


def random_like(rows_SD: Float[np.ndarray, "s d"], seed: int = 0) -> Float[np.ndarray, "s d"]:
    """As many random directions with the second moments of the unit rows: x ~ N(0, E[u u^T])."""
    unit_SD = rows_SD / np.maximum(np.linalg.norm(rows_SD, axis=1, keepdims=True), 1e-30)
    values, vectors = np.linalg.eigh(unit_SD.T @ unit_SD / len(unit_SD))
    draws = np.random.default_rng(seed).standard_normal(
        (min(len(rows_SD), MOST_DIRECTIONS), rows_SD.shape[1])
    )
    return np.asarray((draws * np.sqrt(np.maximum(values, 0))) @ vectors.T)
