"""Rows become as narrow as the store asks, where they fit."""

import numpy as np
import pytest
import torch

from tendril.harvest.narrow import narrowed


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3.4e38, -3.4e38])
@pytest.mark.parametrize("at", [(0, 0), (611, 40), (1023, 99)])
def test_rows_are_halved_where_all_fit_and_kept_whole_where_one_does_not(
    dtype: str, value: float, at: tuple[int, int]
) -> None:
    rows_RD = torch.randn(1024, 100)
    assert narrowed(rows_RD, dtype).itemsize == 2
    assert narrowed(rows_RD[:0], dtype).shape == (0, 100)
    rows_RD[at] = value
    whole = narrowed(rows_RD, dtype)
    np.testing.assert_array_equal(whole, rows_RD.numpy())
    assert whole.dtype == np.float32
