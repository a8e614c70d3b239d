"""Streaming moments in float64."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

BLOCK_ROWS = 4096  # rows turned into float64 at a time


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations `m2` of each of D channels.

    variance = m2 / count, the population's. Merging follows Chan, Golub & LeVeque (1979):
    with delta = mean_b - mean_a and n = n_a + n_b,
    mean = mean_a + delta n_b / n and m2 = m2_a + m2_b + delta^2 n_a n_b / n.
    """

    count: int
    mean: Float64[np.ndarray, " d"]
    m2: Float64[np.ndarray, " d"]

    @property
    def variance(self) -> Float64[np.ndarray, " d"]:
        """The population variance of each channel."""
        return self.m2 / max(self.count, 1)

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together. Not commutative in the last bit: merge
        in shard order."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + delta * (other.count / count),
            m2=self.m2 + other.m2 + delta**2 * (self.count * other.count / count),
        )


def no_moments(width: int) -> Moments:
    """The moments of no rows at all."""
    return Moments(0, np.zeros(width), np.zeros(width))


def moments_of(rows_RD: Float[np.ndarray, "r d"]) -> Moments:
    """The moments of rows, in one pass over blocks."""
    total = no_moments(rows_RD.shape[1])
    for start in range(0, len(rows_RD), BLOCK_ROWS):
        block = rows_RD[start : start + BLOCK_ROWS].astype(np.float64)
        mean = block.mean(axis=0)
        total = total.merge(Moments(len(block), mean, ((block - mean) ** 2).sum(axis=0)))
    return total
