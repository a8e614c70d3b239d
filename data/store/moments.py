"""Streaming moments of rows, in float64."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Shaped

from ..errors import StoreDamagedError
from .dtypes import widen

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)  # levels, for norms
OUTLIER_TIMES = 10.0  # a norm outlier has a norm of more than this many medians
BLOCK_BYTES = 2**22  # of float64 per block; threads contend for memory with smaller ones
CANCELLED = 15 / 16  # the largest part of a sum of squares that may cancel: 4 of 53 bits
COMPILE_FROM = 2**26  # values in a store from which compiling pays: seconds of harvesting


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared deviations `m2` and number of zeros of each of D channels.

    variance = m2 / count, the population variance. Merging follows Chan, Golub & LeVeque (1979):
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
        """The moments of the rows of both.

        The last bits depend on the order, so shards are always merged in ascending order.
        """
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
    """The moments of zero rows, from which merging starts."""
    return Moments(0, np.zeros(width), np.zeros(width), np.zeros(width, np.int64))


def moments_of(rows_RD: Float[np.ndarray, "r d"]) -> Moments:
    """The moments of rows, in one pass over blocks."""
    return describe_rows(rows_RD, rows_RD.dtype.name)[0]


def describe_rows(
    stored_RD: Shaped[np.ndarray, "r d"],
    dtype: str,
    scale: Float32[np.ndarray, " r"] | None = None,
    *,
    compiled: bool = False,
) -> tuple[Moments, Float32[np.ndarray, " r"]]:
    """The moments of finite stored rows, and the L2 norm of each.

    `compiled` uses numba where it is installed, which pays for many rows; the bits are the same.
    """
    from . import sums  # which readers of a store do without

    add = sums.sums_of
    several = stored_RD.shape[1] > 1  # numpy adds a single column in another order
    if compiled and several and find_spec("numba"):
        from . import sums_compiled  # importing numba takes half a second

        add = sums_compiled.sums_of
    width = stored_RD.shape[1]
    total, norms = no_moments(width), np.empty(len(stored_RD), np.float32)
    step = max(1, BLOCK_BYTES // (8 * max(width, 1)))
    for start in range(0, len(stored_RD), step):
        at = slice(start, start + step)
        stored_BD, scale_B = stored_RD[at], None if scale is None else scale[at]
        total_D, squares_D, zeros_D, row_squares_B = add(stored_BD, dtype, scale_B)
        norms[at] = np.sqrt(row_squares_B)
        m2_D = _squared_deviations(total_D, squares_D, stored_BD, dtype, scale_B)
        count = len(stored_BD)
        total = total.merge(Moments(count, total_D / count, m2_D, zeros_D))
    return total, norms


def _squared_deviations(
    total_D: Float64[np.ndarray, " d"],
    squares_D: Float64[np.ndarray, " d"],
    stored_BD: Shaped[np.ndarray, "b d"],
    dtype: str,
    scale: Float32[np.ndarray, " b"] | None,
) -> Float64[np.ndarray, " d"]:
    """m2 from sums: sum_b (x_b - mean)^2 = sum_b x_b^2 - B mean^2.

    The right-hand side saves a pass over the rows. Channels in which it would cancel more than
    CANCELLED of the sum of squares use the left-hand side.
    """
    count = len(stored_BD)
    mean_D = total_D / count
    m2_D: Float64[np.ndarray, " d"] = squares_D - count * mean_D**2
    near = np.flatnonzero(~(m2_D >= (1 - CANCELLED) * squares_D))
    if len(near):
        off_BN = widen(stored_BD[:, near], dtype, scale) - mean_D[near]
        m2_D[near] = np.einsum("bn,bn->n", off_BN, off_BN)
    return m2_D


def moments_to_json(moments: Moments) -> dict[str, Any]:
    """Moments as JSON without loss: the bytes of each vector (little-endian) in base64.

    Writing decimals would take longer than writing the rows.
    """
    return {
        "count": moments.count,
        "mean": _packed(moments.mean, "<f8"),
        "m2": _packed(moments.m2, "<f8"),
        "zeros": _packed(moments.zeros, "<i8"),
    }


def moments_from_json(fields: Mapping[str, Any]) -> Moments:
    """The inverse of `moments_to_json`. Raises StoreDamagedError if the fields are malformed."""
    try:
        return Moments(
            int(fields["count"]),
            _unpacked(fields["mean"], "<f8"),
            _unpacked(fields["m2"], "<f8"),
            _unpacked(fields["zeros"], "<i8"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(
            f"the moments of a record must be a count and vectors in base64; got something else "
            f"({error}). `tendril data verify` names the damaged file."
        ) from error


def _packed(vector: Shaped[np.ndarray, " d"], dtype: str) -> str:
    return base64.b64encode(vector.astype(dtype).tobytes()).decode()


def _unpacked(text: str, dtype: str) -> Shaped[np.ndarray, " d"]:
    return np.frombuffer(base64.b64decode(text), dtype)
