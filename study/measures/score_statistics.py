"""Statistics of scores: correlations that may be undefined, moments, and bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float64, Num

from tendril.data import order

CONSTANT = 1e-6  # values that differ by less, relative to the largest, count as constant
RESAMPLES = 2000
LEVEL = 0.95
BOOTSTRAP_KEY = 0xB007


@final
@dataclass(frozen=True)
class Correlation:
    """A correlation, or None and the reason why there is none."""

    value: float | None
    undefined: str = ""


def correlation(
    truth_N: Float[np.ndarray, " n"], guess_N: Float[np.ndarray, " n"], guess: str = "simulated"
) -> Correlation:
    """Pearson's correlation. Undefined where either side is constant: its differences are then
    zero, or errors of rounding."""
    if is_constant(truth_N):
        return Correlation(None, "the true activations are constant")
    if is_constant(guess_N):
        return Correlation(None, f"the {guess} activations are constant")
    a, b = truth_N - truth_N.mean(), guess_N - guess_N.mean()
    value = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    return Correlation(max(-1.0, min(1.0, value)))


def is_constant(values_N: Float[np.ndarray, " n"]) -> bool:
    """True for no values, one value, or values that differ by no more than rounding."""
    if len(values_N) < 2:
        return True
    return bool(np.ptp(values_N) <= CONSTANT * np.abs(values_N).max())


def ranks(values_N: Num[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Ranks from 1; equal values share their mean rank."""
    _, group_N, count = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[group_N], dtype=np.float64)


def rank_correlation(
    one_N: Float[np.ndarray, " n"], other_N: Float[np.ndarray, " n"]
) -> Correlation:
    """Spearman's correlation, with mean ranks for ties."""
    return correlation(ranks(one_N), ranks(other_N), "other")


def moments(values_M: Float[np.ndarray, " m"], count: int) -> tuple[float | None, float | None]:
    """Skew and excess kurtosis of `count` activations, of which all but `values` are zero.

    E[(x - mean)^3] / std^3 and E[(x - mean)^4] / std^4 - 3; None where all are equal.
    """
    assert count >= len(values_M)
    x_M = values_M.astype(np.float64)
    zeros = count - len(x_M)
    mean = x_M.sum() / count if count else 0.0

    def central(power: int) -> float:
        return float((((x_M - mean) ** power).sum() + zeros * (-mean) ** power) / count)

    variance = central(2) if count else 0.0
    if variance <= (CONSTANT * float(np.abs(x_M).max(initial=0.0))) ** 2:
        return None, None
    return central(3) / variance**1.5, central(4) / variance**2 - 3


def auroc(positive_P: Float[np.ndarray, " p"], negative_N: Float[np.ndarray, " n"]) -> float:
    """The probability that a positive value lies above a negative one; ties count half."""
    above_PN = positive_P[:, None] - negative_N
    return float(((above_PN > 0) + 0.5 * (above_PN == 0)).mean())


def interval(values: Sequence[float], seed: int) -> tuple[float, float] | None:
    """The bootstrap interval of a mean: the 2.5th and 97.5th percentile of the means of 2000
    resamples of the values. None for fewer than two."""
    count = len(values)
    if count < 2:
        return None
    drawn = (order.uniform(RESAMPLES * count, BOOTSTRAP_KEY, seed) * count).astype(np.int64)
    means = np.asarray(values, np.float64)[drawn].reshape(RESAMPLES, count).mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
