"""The sums over a block of rows, compiled by numba: one pass over the stored bits.

`sums_of` adds in the same order as `sums.sums_of`, so both return the same bits (tested). It takes
a sixth of the time on one core and releases the GIL. Importing numba takes half a second, and the
first compilation on a machine another, so this module is imported only when many rows are written.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Shaped
from numba import types
from numba.extending import overload

from .sums import LANES, Sums


def sums_of(
    stored_BD: Shaped[np.ndarray, "b d"], dtype: str, scale: Float32[np.ndarray, " b"] | None
) -> Sums:
    """`sums.sums_of`, compiled."""
    rows, width = stored_BD.shape
    scales = np.ones(rows, np.float32) if scale is None else np.ascontiguousarray(scale)
    bits_BD = np.ascontiguousarray(stored_BD)
    if dtype == "float16":
        bits_BD = bits_BD.view(np.int16)  # numba has no float16; bfloat16 is stored as uint16
    sums = Sums(np.zeros(width), np.zeros(width), np.zeros(width, np.int64), np.empty(rows))
    _add(bits_BD, scales, *sums)
    return sums


def _wide(value, scale):  # type: ignore[no-untyped-def]
    """A stored value as float64, exactly."""
    raise NotImplementedError("only for compiled code")


@overload(_wide, inline="always")
@no_type_check
def _wide_of(value, scale):
    """`dtypes.widen` of one value, for each stored dtype."""
    if value == types.int16:  # float16
        mask, bias = -0x70002000, np.float32(2.0**112)
        return lambda value, scale: np.float64(
            np.int32((np.int64(value) << 13) & mask).view(np.float32) * bias
        )
    if value == types.uint16:  # bfloat16
        return lambda value, scale: np.float64(np.uint32(np.int64(value) << 16).view(np.float32))
    if value == types.int8:
        return lambda value, scale: np.float64(np.float32(value) * scale)
    return lambda value, scale: np.float64(value)


def _is_zero(value):  # type: ignore[no-untyped-def]
    """True if a stored value is +0 or -0."""
    raise NotImplementedError("only for compiled code")


@overload(_is_zero, inline="always")
@no_type_check
def _is_zero_of(value):
    if value in (types.int16, types.uint16):
        return lambda value: (value & 0x7FFF) == 0
    return lambda value: value == 0


def _cached(function: Callable[..., None]) -> Any:
    """Compile a function on its first call with each set of argument types.

    The machine code is cached next to this file's bytecode or in the user's cache. If neither
    can be written, every process compiles anew.
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no cache can be written
        return numba.njit(nogil=True)(function)


@no_type_check
def _add_rows(bits_BD, scales, total_D, squares_D, zeros_D, row_squares_B):
    """Add row by row, LANES channels at a time, so that the compiler can use vector units.

    No sum is reordered and no multiply-add fused, so all machines return the same bits.
    """
    width = bits_BD.shape[1]
    whole = width // LANES * LANES
    lanes = np.empty(LANES)
    for row in range(bits_BD.shape[0]):
        lanes[:] = 0
        for start in range(0, whole, LANES):
            for lane in range(LANES):
                value = bits_BD[row, start + lane]
                x = _wide(value, scales[row])
                square = x * x
                lanes[lane] += square
                total_D[start + lane] += x
                squares_D[start + lane] += square
                zeros_D[start + lane] += _is_zero(value)
        for lane in range(width - whole):
            value = bits_BD[row, whole + lane]
            x = _wide(value, scales[row])
            square = x * x
            lanes[lane] += square
            total_D[whole + lane] += x
            squares_D[whole + lane] += square
            zeros_D[whole + lane] += _is_zero(value)
        half = LANES // 2
        while half:
            for lane in range(half):
                lanes[lane] += lanes[lane + half]
            half //= 2
        row_squares_B[row] = lanes[0]


_add = _cached(_add_rows)
