"""How the curve detectors of a dictionary grow with its number of latents.

Angles are degrees. `family` is the set of latents that pass the criteria of `CurveFamily`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int64

from .allocation import Slope, log_slope
from .curve_scores import gaps
from .gap_chance import uniform, widest_gaps

TOLERANCE = 5.0
"""Orientations this close count as one."""
SAME = 0.9
"""Decoder rows with this cosine count as one direction."""
DRAWS = 1000
STRONG = 0.5
"""A unit is strong from this fraction of its high level on."""
HIGH = 0.99
"""The high level of a unit is this quantile of its activations above 0."""
OWNS = 0.5
"""A latent belongs to the planted direction that holds more than this fraction of its squared
norm."""
NONE = -1


@final
@dataclass(frozen=True)
class Tiling:
    """How finely orientations tile the circle.

    count:      orientations
    distinct:   those left when all within TOLERANCE of one are merged into it
    directions: decoder rows left when all within a cosine of SAME of one are merged into it
    widest, median: of the gaps between neighbours; 360 and NaN without orientations
    chance:     mean of the widest gap of as many uniform orientations
    """

    count: int
    distinct: int
    directions: int
    widest: float
    median: float
    chance: float


def tiling(orientations: Sequence[float], rows_MD: Float[np.ndarray, "m d"]) -> Tiling:
    """How finely the orientations of curve latents, whose decoder rows are given, tile the
    circle."""
    widths = [gap.degrees for gap in gaps(orientations)]
    count = len(orientations)
    return Tiling(
        count,
        merged(orientations),
        distinct_rows(rows_MD),
        max(widths),
        float(np.median(widths)) if count else float("nan"),
        float(widest_gaps(uniform(count, DRAWS)).mean()) if count else 360.0,
    )


def merged(orientations: Sequence[float], tolerance: float = TOLERANCE) -> int:
    """The number of arcs of `tolerance` degrees that cover all orientations, taken in turn from
    the end of the widest gap."""
    if not orientations:
        return 0
    widest = max(gaps(orientations), key=lambda gap: gap.degrees)
    start = widest.start + widest.degrees
    around = np.sort((np.asarray(orientations, float) - start + 1e-6) % 360)
    arcs, end = 0, -1.0
    for angle in around:
        if angle > end:
            arcs, end = arcs + 1, angle + tolerance
    return arcs


def distinct_rows(rows_MD: Float[np.ndarray, "m d"], same: float = SAME) -> int:
    """The number of rows left when each that has a cosine of `same` with a row kept before it is
    dropped."""
    norms = np.linalg.norm(rows_MD, axis=1, keepdims=True)
    unit_MD = rows_MD / np.maximum(norms, 1e-30)
    kept: list[int] = []
    for i, row in enumerate(unit_MD):
        if not kept or float((unit_MD[kept] @ row).max()) < same:
            kept.append(i)
    return len(kept)


def growth(latents: Sequence[int], counts: Sequence[int]) -> Slope | None:
    """The exponent of counts against numbers of latents, by least squares in logarithms; zeros are
    left out. None for fewer than two numbers with a count."""
    x, y = np.asarray(latents, float), np.asarray(counts, float)
    if len(np.unique(x[(x > 0) & (y > 0)])) < 2:
        return None
    return log_slope(x, y)


def rows_of_curves(x_ND: Float[np.ndarray, "n d"], units: Sequence[int]) -> Bool[np.ndarray, " n"]:
    """The rows on which a curve unit is strong against the rest.

    Activations are divided by the unit's high level (the quantile HIGH of those above 0). A row
    counts if the largest of the curve units is at least STRONG and larger than that of all others.
    """
    active = [x_N[x_N > 0] for x_N in x_ND.T]
    high_D = np.array([np.quantile(x_N, HIGH) if len(x_N) else np.inf for x_N in active])
    level_ND = x_ND / high_D
    chosen = np.zeros(x_ND.shape[1], bool)
    chosen[list(units)] = True
    if not chosen.any():
        return np.zeros(len(x_ND), bool)
    curve_N = level_ND[:, chosen].max(axis=1)
    other_N = level_ND[:, ~chosen].max(axis=1, initial=0.0)
    return np.asarray((curve_N >= STRONG) & (curve_N > other_N))


def owners(
    rows_SD: Float[np.ndarray, "s d"], directions_FD: Float[np.ndarray, "f d"]
) -> Int64[np.ndarray, " s"]:
    """The planted direction that each decoder row belongs to: the one of the largest cosine, if it
    holds more than OWNS of the squared norm; else NONE."""
    norms = np.linalg.norm(rows_SD, axis=1, keepdims=True)
    cosine_SF = rows_SD / np.maximum(norms, 1e-30) @ directions_FD.T
    best_S = cosine_SF.argmax(axis=1)
    large_S = np.take_along_axis(cosine_SF, best_S[:, None], axis=1)[:, 0] > OWNS**0.5
    return np.where(large_S, best_S, NONE).astype(np.int64)
