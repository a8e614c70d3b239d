"""The sums over a block of rows from which its moments and norms follow, in numpy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from .dtypes import is_zero, widen

LANES = 16  # partial sums per row: channel d is added to number d mod LANES


class Sums(NamedTuple):
    """Sums over a block of B rows of D channels.

    Per channel: the values, their squares, and how many are zero. Per row: the squares.
    """

    total_D: Float64[np.ndarray, " d"]
    squares_D: Float64[np.ndarray, " d"]
    zeros_D: Int64[np.ndarray, " d"]
    row_squares_B: Float64[np.ndarray, " b"]


def sums_of(
    stored_BD: Shaped[np.ndarray, "b d"], dtype: str, scale: Float32[np.ndarray, " b"] | None
) -> Sums:
    """The sums of a block of stored rows, in float64.

    Channels are added row by row. The squares of a row are added into LANES partial sums, which
    are then added pairwise. Vector units of any width can keep to this order, so that
    `sums_compiled.sums_of` returns the same bits.
    """
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
        _count_true(is_zero(stored_BD, dtype)),
        lanes_BL[:, 0],
    )


def _count_true(mask_BD: Bool[np.ndarray, "b d"]) -> Int64[np.ndarray, " d"]:
    """The number of True values in each column.

    Blocks of 255 rows are added as bytes, which cannot overflow: 8x faster than
    `np.count_nonzero`.
    """
    total_D = np.zeros(mask_BD.shape[1], np.int64)
    for start in range(0, len(mask_BD), 255):
        block_BD = mask_BD[start : start + 255].view(np.uint8)
        total_D += np.add.reduce(block_BD, axis=0, dtype=np.uint8)
    return total_D
