"""The dtypes of stored rows, and their conversion from and to float32.

zarr has no bfloat16: its bits are stored as uint16, with the attribute `bits_of: bfloat16` on the
array. int8 rows have one scale per row, stored in another array.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from ..errors import ConfigError, OverflowingRowsError

STORED_AS = {"float16": "float16", "bfloat16": "uint16", "float32": "float32", "int8": "int8"}
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}
DTYPES = tuple(STORED_AS)
NO_ROW = {"float16": np.nan, "bfloat16": 0x7FC0, "float32": np.nan, "int8": -128}  # fill values
STEPS = 127  # int8 values on each side of zero; -128 marks an invalid row
EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80}  # the exponent bits, all set for NaN and Inf


def encode_rows(
    rows: Shaped[np.ndarray, " r *d"], dtype: str, where: str
) -> Shaped[np.ndarray, " r *d"]:
    """Convert float32 rows to their stored dtype; rows that have it already are returned.

    Raises OverflowingRowsError if a value is not finite, or too large for `dtype`; `where` names
    the site in the message. For int8 use `quantise`.
    """
    if dtype not in STORED_AS:
        raise ConfigError(f"--dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    assert dtype != "int8", "use `quantise`, which also returns the scales"
    if rows.dtype == STORED_AS[dtype] != "float32":
        return rows
    with np.errstate(over="ignore"):
        stored = _bfloat16_bits(rows) if dtype == "bfloat16" else rows.astype(dtype, copy=False)
    if not _is_finite(stored, dtype):
        _explain_overflow(rows, dtype, where)
    return stored


def quantise(
    rows: Float32[np.ndarray, " r *d"], where: str
) -> tuple[Shaped[np.ndarray, " r *d"], Float32[np.ndarray, " r"]]:
    """Rows as int8 q and one scale s per row: x ~ s q, s = max |x| / 127, q = round(x / s).

    The error of a value is at most s / 2. Raises OverflowingRowsError if a value is not finite.
    """
    largest = np.abs(rows).max(axis=tuple(range(1, rows.ndim)), initial=0)
    if not np.isfinite(largest).all():
        _explain_overflow(rows, "int8", where)
    scale = (largest / np.float32(STEPS)).astype(np.float32)
    divisor = np.where(scale > 0, scale, np.float32(1)).reshape(-1, *(1,) * (rows.ndim - 1))
    return np.rint(rows / divisor).clip(-STEPS, STEPS).astype(np.int8), scale


def decode_rows(
    stored: Shaped[np.ndarray, " r *d"], dtype: str, scale: Float32[np.ndarray, " r"] | None = None
) -> Float32[np.ndarray, " r *d"]:
    """Stored rows as float32. The conversion is exact for the float dtypes."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "int8":
        assert scale is not None, "int8 rows need their scales"
        whole: Float32[np.ndarray, " r *d"] = stored.astype(np.float32)
        whole *= scale.reshape(-1, *(1,) * (stored.ndim - 1))
        return whole
    return stored.astype(np.float32, copy=False)


def widen(
    stored: Shaped[np.ndarray, "r d"], dtype: str, scale: Float32[np.ndarray, " r"] | None = None
) -> Float64[np.ndarray, "r d"]:
    """Finite stored rows as float64, exactly.

    float16 is converted by shifting bits, which takes a third of the time of numpy's conversion.
    """
    if dtype != "float16":
        return decode_rows(stored, dtype, scale).astype(np.float64)
    bits = stored.view(np.int16).astype(np.int32)  # extends the sign into the upper half
    bits <<= 13
    bits &= -0x70002000  # keeps sign, exponent and mantissa at their places in float32
    single = bits.view(np.float32)
    single *= np.float32(2.0**112)  # the exponent bias is 127 in float32 and 15 in float16
    return single.astype(np.float64)


def is_zero(stored: Shaped[np.ndarray, "r d"], dtype: str) -> Bool[np.ndarray, "r d"]:
    """True for stored values that are +0 or -0."""
    if dtype in EXPONENT:
        stored = stored.view(np.uint16) << np.uint16(1)
    zero: Bool[np.ndarray, "r d"] = stored == 0
    return zero


def _is_finite(stored: Shaped[np.ndarray, " r *d"], dtype: str) -> bool:
    if dtype == "float32":
        return bool(np.isfinite(stored).all())
    exponent = np.uint16(EXPONENT[dtype])
    return not ((stored.view(np.uint16) & exponent) == exponent).any()


def _bfloat16_bits(rows: Float32[np.ndarray, " r *d"]) -> Shaped[np.ndarray, " r *d"]:
    bits = np.ascontiguousarray(rows).view(np.uint32)
    to_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    with np.errstate(over="ignore"):
        rounded = ((bits + to_even) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(rows), np.uint16(0x7FC0), rounded)


def _explain_overflow(rows: Shaped[np.ndarray, " r *d"], dtype: str, where: str) -> None:
    values = decode_rows(rows, dtype) if rows.dtype == STORED_AS[dtype] else rows
    if not np.isfinite(values).all():
        raise OverflowingRowsError(
            f"activations must be finite; got NaN or infinity at {where}. Check the subject's "
            "weights and preprocessing. If it computes in float16 (--compute float16), whose "
            "largest number is 65,504, use --compute bfloat16 or float32."
        )
    raise OverflowingRowsError(
        f"activations must fit into {dtype}; got {np.abs(values).max():.4g} at {where}. Harvest "
        f"with --dtype {'bfloat16' if dtype == 'float16' else 'float32'}."
    )
