"""Streaming moments in float64."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from .rows import is_zero, widen

HUGE = 10.0  # times the median: a norm that stands out
BLOCK_BYTES = 2**22  # of float64 looked at a time: in less, threads wait for each other
CANCELLED = 15 / 16  # of a sum of squares, at most: four bits of 53


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared deviations `m2` and number of zeros of each of D channels.

    variance = m2 / count, the population's. Merging follows Chan, Golub & LeVeque (1979):
    with delta = mean_b - mean_a and n = n_a + n_b,
    mean = mean_a + delta n_b / n and m2 = m2_a + m2_b + delta^2 n_a n_b / n.
    """

    count: int
    mean: Float64[np.ndarray, " d"]
    m2: Float64[np.ndarray, " d"]
    zeros: Int64[np.ndarray, " d"] = field(default_factory=lambda: np.zeros(0, np.int64))

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
            zeros=self.zeros + other.zeros,
        )


def no_moments(width: int) -> Moments:
    """The moments of no rows at all."""
    return Moments(0, np.zeros(width), np.zeros(width), np.zeros(width, np.int64))


def moments_of(rows_RD: Float[np.ndarray, "r d"]) -> Moments:
    """The moments of rows, in one pass over blocks."""
    return describe_rows(rows_RD, rows_RD.dtype.name)[0]


def describe_rows(
    stored_RD: Shaped[np.ndarray, "r d"],
    dtype: str,
    scale: Float32[np.ndarray, " r"] | None = None,
) -> tuple[Moments, Float32[np.ndarray, " r"]]:
    """The moments of stored rows (finite ones), and the L2 norm of each."""
    width = stored_RD.shape[1]
    total, norms = no_moments(width), np.empty(len(stored_RD), np.float32)
    step = max(1, BLOCK_BYTES // (8 * max(width, 1)))
    for start in range(0, len(stored_RD), step):
        at = slice(start, start + step)
        x_BD = widen(stored_RD[at], dtype, None if scale is None else scale[at])
        norms[at] = np.sqrt(np.vecdot(x_BD, x_BD))
        mean_D = np.add.reduce(x_BD, axis=0) / len(x_BD)
        zeros_D = _count(is_zero(stored_RD[at], dtype))
        total = total.merge(Moments(len(x_BD), mean_D, _deviations(x_BD, mean_D), zeros_D))
    return total, norms


def _deviations(
    x_BD: Float64[np.ndarray, "b d"], mean_D: Float64[np.ndarray, " d"]
) -> Float64[np.ndarray, " d"]:
    """sum_b (x_b - mean)^2 = sum_b x_b^2 - B mean^2, a pass over the rows less; where that would
    cancel more than CANCELLED of the sum, as it says on the left."""
    squares_D = np.einsum("bd,bd->d", x_BD, x_BD)
    m2_D: Float64[np.ndarray, " d"] = squares_D - len(x_BD) * mean_D**2
    near = np.flatnonzero(~(m2_D >= (1 - CANCELLED) * squares_D))
    if len(near):
        off_BN = x_BD[:, near] - mean_D[near]
        m2_D[near] = np.einsum("bn,bn->n", off_BN, off_BN)
    return m2_D


def _count(on_BD: Bool[np.ndarray, "b d"]) -> Int64[np.ndarray, " d"]:
    """How many are on in each column. Bytes are added as bytes, which holds for 255 of them and
    is eight times as fast as counting."""
    total_D = np.zeros(on_BD.shape[1], np.int64)
    for start in range(0, len(on_BD), 255):
        total_D += np.add.reduce(on_BD[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8)
    return total_D
