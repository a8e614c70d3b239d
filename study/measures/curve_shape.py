"""Plateaus, where they end, and dips of a curve that is known at a few places."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

BAND = 2.0
"""The values of a plateau differ by at most this many mean rises."""
FEWEST = 5
"""Steps of a plateau at least. A curve that rises evenly stays in the band for two."""


@final
@dataclass(frozen=True)
class Plateau:
    """Places `first` to `last` between which a curve is flat, and its mean there."""

    first: int
    last: int
    level: float


@final
@dataclass(frozen=True)
class Dip:
    """Where a curve is lowest between two higher places, and how far it falls below the lower of
    them, as a fraction of that."""

    peak: int
    place: int
    depth: float


def plateaus(curve: Sequence[float] | Float[np.ndarray, " n"]) -> list[Plateau]:
    """Where a curve that rises over all stays within BAND mean rises for FEWEST steps or more, the
    longest first chosen, in order. Empty for a curve that does not rise."""
    values = np.asarray(curve, float)
    mean_rise = (values[-1] - values[0]) / max(1, len(values) - 1)
    found: list[Plateau] = []
    free = np.ones(len(values), bool)
    while mean_rise > 0:
        first, last = _longest(values, free, BAND * mean_rise)
        if last - first < FEWEST:
            break
        found.append(Plateau(first, last, float(values[first : last + 1].mean())))
        free[first : last + 1] = False
    return sorted(found, key=lambda one: one.first)


def _longest(values: np.ndarray, free: np.ndarray, band: float) -> tuple[int, int]:
    """The longest range of free places whose values differ by at most `band`."""
    best = (0, 0)
    for first in range(len(values)):
        last = first
        while last < len(values) and free[last] and np.ptp(values[first : last + 1]) <= band:
            last += 1
        if last - 1 - first > best[1] - best[0]:
            best = (first, last - 1)
    return best


def crossing(
    x: Sequence[float] | Float[np.ndarray, " n"],
    curve: Sequence[float] | Float[np.ndarray, " n"],
    level: float,
) -> float:
    """The x from which a curve stays above a level, by linear interpolation; NaN if it ends below
    or is never below."""
    at, values = np.asarray(x, float), np.asarray(curve, float)
    below = np.flatnonzero(values <= level)
    if not len(below) or below[-1] == len(values) - 1:
        return float("nan")
    i = int(below[-1])
    part = (level - values[i]) / (values[i + 1] - values[i])
    return float(at[i] + part * (at[i + 1] - at[i]))


def deepest_dip(curve: Sequence[float] | Float[np.ndarray, " n"]) -> Dip | None:
    """The place where a curve falls furthest below both what came before and what comes after;
    None for a curve that only rises or only falls."""
    values = np.asarray(curve, float)
    if len(values) < 3:
        return None
    before = np.maximum.accumulate(values)
    after = np.maximum.accumulate(values[::-1])[::-1]
    rim = np.minimum(before, after)
    place = int(np.argmax(rim - values))
    if rim[place] <= values[place]:
        return None
    peak = int(np.argmax(values[: place + 1]))
    return Dip(peak, place, float((rim[place] - values[place]) / abs(rim[place])))
