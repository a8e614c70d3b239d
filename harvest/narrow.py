"""Narrow the rows of a forward pass to the dtype of the store."""

import numpy as np
import torch
from jaxtyping import Float, Shaped

from tendril.data.store.dtypes import STORED_AS


def narrowed(rows_RD: Float[torch.Tensor, " r *d"], dtype: str) -> Shaped[np.ndarray, " r *d"]:
    """Rows in the 16-bit `dtype` of the store, or in float32 for other dtypes.

    torch rounds ten times as fast as numpy, and a GPU then transfers half the bytes. Rows that
    overflow `dtype` stay float32, so that the store can report them.
    """
    if dtype in ("float16", "bfloat16"):
        half_RD = rows_RD.to(getattr(torch, dtype))
        if _is_finite(half_RD):
            whole: np.ndarray = half_RD.view(torch.int16).cpu().numpy()
            return whole.view(STORED_AS[dtype])
    return rows_RD.float().cpu().numpy()


def _is_finite(half_RD: Float[torch.Tensor, " r *d"]) -> bool:
    """True if all values are finite.

    Checks only min and max, through which NaN propagates: 20 times as fast as `isfinite`.
    """
    return half_RD.numel() == 0 or bool(torch.stack(torch.aminmax(half_RD)).isfinite().all())
