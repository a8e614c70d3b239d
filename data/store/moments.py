"""Streaming moments in float64."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from .dtypes import is_zero, widen

HUGE = 10.0  # times the median: a norm that stands out
BLOCK_BYTES = 2**22  # of float64 looked at a time: in less, threads wait for each other
CANCELLED = 15 / 16  # of a sum of squares, at most: four bits of 53
MUCH = 2**26  # values in a store, from which compiling pays: seconds of harvesting
LANES = 16  # sums that a row's squares are added to, channel d to number d mod LANES


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


class Sums(NamedTuple):
    """What a block of rows adds up to: of each channel the values, their squares and how many
    are zero; of each row the squares."""

    total_D: Float64[np.ndarray, " d"]
    squares_D: Float64[np.ndarray, " d"]
    zeros_D: Int64[np.ndarray, " d"]
    row_squares_B: Float64[np.ndarray, " b"]


def describe_rows(
    stored_RD: Shaped[np.ndarray, "r d"],
    dtype: str,
    scale: Float32[np.ndarray, " r"] | None = None,
    *,
    compiled: bool = False,
) -> tuple[Moments, Float32[np.ndarray, " r"]]:
    """The moments of stored rows (finite ones), and the L2 norm of each; to the same bits
    whether `compiled` or not, which pays where there are many."""
    add = sums_of
    if compiled and stored_RD.shape[1] > 1:  # numpy adds a lone column in another order
        from . import sums_compiled as sums  # not at the top: half a second

        add = sums.sums_of
    width = stored_RD.shape[1]
    total, norms = no_moments(width), np.empty(len(stored_RD), np.float32)
    step = max(1, BLOCK_BYTES // (8 * max(width, 1)))
    for start in range(0, len(stored_RD), step):
        at = slice(start, start + step)
        stored_BD, scale_B = stored_RD[at], None if scale is None else scale[at]
        added = add(stored_BD, dtype, scale_B)
        norms[at] = np.sqrt(added.row_squares_B)
        total = total.merge(_moments(added, stored_BD, dtype, scale_B))
    return total, norms


def _moments(
    added: Sums,
    stored_BD: Shaped[np.ndarray, "b d"],
    dtype: str,
    scale: Float32[np.ndarray, " b"] | None,
) -> Moments:
    """sum_b (x_b - mean)^2 = sum_b x_b^2 - B mean^2, a pass over the rows less; where that would
    cancel more than CANCELLED of the sum, as it says on the left."""
    count = len(stored_BD)
    mean_D = added.total_D / count
    m2_D: Float64[np.ndarray, " d"] = added.squares_D - count * mean_D**2
    near = np.flatnonzero(~(m2_D >= (1 - CANCELLED) * added.squares_D))
    if len(near):
        off_BN = widen(stored_BD[:, near], dtype, scale) - mean_D[near]
        m2_D[near] = np.einsum("bn,bn->n", off_BN, off_BN)
    return Moments(count, mean_D, m2_D, added.zeros_D)


def sums_of(
    stored_BD: Shaped[np.ndarray, "b d"], dtype: str, scale: Float32[np.ndarray, " b"] | None
) -> Sums:
    """The sums of a block, each channel's row by row. A row's squares are added to LANES sums
    first, and those in halves: an order that vectors of any width can keep to, so that
    `sums.sums_of`, which is compiled, comes to the same bits."""
    x_BD = widen(stored_BD, dtype, scale)
    total_D = np.add.reduce(x_BD, axis=0, initial=0.0)
    x_BD *= x_BD
    rows, width = x_BD.shape
    whole = width // LANES * LANES
    lanes_BL = np.add.reduce(x_BD[:, :whole].reshape(rows, whole // LANES, LANES), axis=1)
    lanes_BL[:, : width - whole] += x_BD[:, whole:]
    half = LANES // 2
    while half:
        lanes_BL[:, :half] += lanes_BL[:, half : 2 * half]
        half //= 2
    return Sums(
        total_D,
        np.add.reduce(x_BD, axis=0, initial=0.0),
        _count(is_zero(stored_BD, dtype)),
        lanes_BL[:, 0],
    )


def _count(on_BD: Bool[np.ndarray, "b d"]) -> Int64[np.ndarray, " d"]:
    """How many are on in each column. Bytes are added as bytes, which holds for 255 of them and
    is eight times as fast as counting."""
    total_D = np.zeros(on_BD.shape[1], np.int64)
    for start in range(0, len(on_BD), 255):
        total_D += np.add.reduce(on_BD[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8)
    return total_D
