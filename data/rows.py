"""The dtypes of stored rows, and the way between them and float32.

bfloat16 is no native dtype of zarr: its bits are stored as uint16, with the attribute
`bits_of: bfloat16` on the array.
"""

import numpy as np
from jaxtyping import Float32, Shaped

from .errors import ConfigError, OverflowingRowsError

STORED_AS = {"float16": "float16", "bfloat16": "uint16", "float32": "float32"}
DTYPES = tuple(STORED_AS)


def encode_rows(
    rows_RD: Float32[np.ndarray, "r d"], dtype: str, where: str
) -> Shaped[np.ndarray, "r d"]:
    """float32 rows as they are stored.

    Raises OverflowingRowsError where a finite value is too large for `dtype`, and where the
    subject itself gave a value that is not finite; `where` names the site in the sentence.
    """
    if dtype not in STORED_AS:
        raise ConfigError(f"--dtype is one of {', '.join(DTYPES)}, and not {dtype!r}.")
    with np.errstate(over="ignore"):
        stored = _bfloat16_bits(rows_RD) if dtype == "bfloat16" else rows_RD.astype(dtype)
    if not np.isfinite(decode_rows(stored, dtype)).all():
        _explain_overflow(rows_RD, dtype, where)
    return stored


def decode_rows(stored_RD: Shaped[np.ndarray, "r d"], dtype: str) -> Float32[np.ndarray, "r d"]:
    """Stored rows as float32; exact for all three dtypes."""
    if dtype == "bfloat16":
        return (stored_RD.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored_RD.astype(np.float32, copy=False)


def _bfloat16_bits(rows_RD: Float32[np.ndarray, "r d"]) -> Shaped[np.ndarray, "r d"]:
    bits = np.ascontiguousarray(rows_RD).view(np.uint32)
    to_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    with np.errstate(over="ignore"):
        rounded = ((bits + to_even) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(rows_RD), np.uint16(0x7FC0), rounded)


def _explain_overflow(rows_RD: Float32[np.ndarray, "r d"], dtype: str, where: str) -> None:
    if not np.isfinite(rows_RD).all():
        raise OverflowingRowsError(
            f"the subject gave a value at {where} that is not finite; "
            "check its weights and its preprocessing."
        )
    raise OverflowingRowsError(
        f"an activation of {np.abs(rows_RD).max():.4g} at {where} does not fit {dtype}; "
        f"harvest with --dtype {'bfloat16' if dtype == 'float16' else 'float32'}."
    )
