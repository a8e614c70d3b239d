"""The dtypes of stored rows, and the way between them and float32.

bfloat16 is no native dtype of zarr: its bits are stored as uint16, with the attribute
`bits_of: bfloat16` on the array. int8 rows have a scale each, stored beside them.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from ..errors import ConfigError, OverflowingRowsError

STORED_AS = {"float16": "float16", "bfloat16": "uint16", "float32": "float32", "int8": "int8"}
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}
DTYPES = tuple(STORED_AS)
NO_ROW = {"float16": np.nan, "bfloat16": 0x7FC0, "float32": np.nan, "int8": -128}  # NaN, or as it
STEPS = 127  # of int8, to each side of zero; -128 stands for no row at all
EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80}  # bits that are all on where it is not finite


def encode_rows(
    rows: Shaped[np.ndarray, " r *d"], dtype: str, where: str
) -> Shaped[np.ndarray, " r *d"]:
    """float32 rows as they are stored; rows that are so already come back as they are.

    Raises OverflowingRowsError where a finite value is too large for `dtype`, and where the
    subject itself gave a value that is not finite; `where` names the site in the sentence.
    int8 rows are made by `quantise`.
    """
    if dtype not in STORED_AS:
        raise ConfigError(f"--dtype is one of {', '.join(DTYPES)}, and not {dtype!r}.")
    assert dtype != "int8", "rows of int8 come with their scales, from `quantise`"
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
    """Rows as int8 q and a scale s each: x ~ s q, s = max |x| / 127, q = round(x / s).

    The error of a value is at most s / 2. Raises OverflowingRowsError where a value is not
    finite.
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
    """Stored rows as float32; exact for the floats."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "int8":
        assert scale is not None, "int8 rows come with their scales"
        whole: Float32[np.ndarray, " r *d"] = stored.astype(np.float32)
        whole *= scale.reshape(-1, *(1,) * (stored.ndim - 1))
        return whole
    return stored.astype(np.float32, copy=False)


def widen(
    stored: Shaped[np.ndarray, "r d"], dtype: str, scale: Float32[np.ndarray, " r"] | None = None
) -> Float64[np.ndarray, "r d"]:
    """Finite stored rows as float64, exactly, and quickly: numpy turns float16 into wider
    floats one by one, moving their bits by whole rows takes a third of that."""
    if dtype != "float16":
        return decode_rows(stored, dtype, scale).astype(np.float64)
    bits = stored.view(np.int16).astype(np.int32)  # the sign is copied into the upper half
    bits <<= 13
    bits &= -0x70002000  # sign, exponent and mantissa, where float32 has them
    single = bits.view(np.float32)
    single *= np.float32(2.0**112)  # float32's exponents begin at -127, float16's at -15
    return single.astype(np.float64)


def is_zero(stored: Shaped[np.ndarray, "r d"], dtype: str) -> Bool[np.ndarray, "r d"]:
    """Which stored values are zero, of either sign."""
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
            f"the subject gave a value at {where} that is not finite; "
            "check its weights and its preprocessing."
        )
    raise OverflowingRowsError(
        f"an activation of {np.abs(values).max():.4g} at {where} does not fit {dtype}; "
        f"harvest with --dtype {'bfloat16' if dtype == 'float16' else 'float32'}."
    )
