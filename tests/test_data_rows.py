import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.errors import ConfigError, OverflowingRowsError
from data.rows import DTYPES, decode_rows, encode_rows

FINITE = hnp.arrays(
    np.float32,
    (3, 4),
    elements=st.floats(-60000, 60000, width=32, allow_subnormal=False),
)


@given(FINITE, st.sampled_from(DTYPES))
def test_rows_come_back_as_torch_rounds_them(rows: np.ndarray, dtype: str) -> None:
    back = decode_rows(encode_rows(rows, dtype, "here"), dtype)
    expected = torch.from_numpy(rows).to(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(back, expected)


def test_overflow_of_float16_proposes_bfloat16() -> None:
    rows = np.array([[1.0, 1e5]], np.float32)
    with pytest.raises(OverflowingRowsError, match=r"1e\+05 at resid .*--dtype bfloat16"):
        encode_rows(rows, "float16", "resid")
    assert encode_rows(rows, "bfloat16", "resid").dtype == np.uint16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_stops_the_harvest(dtype: str, value: float) -> None:
    rows = np.array([[1.0, value]], np.float32)
    with pytest.raises(OverflowingRowsError, match="not finite"):
        encode_rows(rows, dtype, "resid")


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ConfigError, match="int7"):
        encode_rows(np.zeros((1, 1), np.float32), "int7", "here")
