import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tendril.data.errors import ConfigError, OverflowingRowsError
from tendril.data.store.dtypes import DTYPES, decode_rows, encode_rows, is_zero, quantise, widen

FLOATS = tuple(dtype for dtype in DTYPES if dtype != "int8")

FINITE = hnp.arrays(
    np.float32,
    (3, 4),
    elements=st.floats(-60000, 60000, width=32, allow_subnormal=False),
)


@given(FINITE, st.sampled_from(FLOATS))
def test_rows_come_back_as_torch_rounds_them(rows: np.ndarray, dtype: str) -> None:
    back = decode_rows(encode_rows(rows, dtype, "here"), dtype)
    expected = torch.from_numpy(rows).to(getattr(torch, dtype)).float().numpy()
    assert np.array_equal(back, expected)


def test_overflow_of_float16_proposes_bfloat16() -> None:
    rows = np.array([[1.0, 1e5]], np.float32)
    with pytest.raises(OverflowingRowsError, match=r"1e\+05 at resid\. .*--dtype bfloat16"):
        encode_rows(rows, "float16", "resid")
    assert encode_rows(rows, "bfloat16", "resid").dtype == np.uint16


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_stops_the_harvest(dtype: str, value: float) -> None:
    rows = np.array([[1.0, value]], np.float32)
    with pytest.raises(OverflowingRowsError, match="must be finite"):
        encode_rows(rows, dtype, "resid")


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ConfigError, match="int7"):
        encode_rows(np.zeros((1, 1), np.float32), "int7", "here")


@given(FINITE)
def test_int8_is_within_half_a_step(rows: np.ndarray) -> None:
    stored, scale = quantise(rows, "here")
    assert stored.dtype == np.int8
    assert stored.min(initial=0) >= -127  # -128 stands for no row
    np.testing.assert_allclose(scale, np.abs(rows).max(axis=1) / 127, rtol=1e-6)
    error = np.abs(decode_rows(stored, "int8", scale) - rows)
    assert (error <= scale[:, None] * 0.5001).all()


def test_int8_of_no_rows_is_no_rows() -> None:
    stored, scale = quantise(np.zeros((0, 3, 4), np.float32), "where no input could be read")
    assert (stored.shape, scale.shape) == ((0, 3, 4), (0,))


def test_int8_of_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(OverflowingRowsError, match="must be finite"):
        quantise(np.array([[1.0, np.inf]], np.float32), "resid")


@given(hnp.arrays(np.uint16, 40))
def test_widening_is_exact_for_every_finite_float16(bits: np.ndarray) -> None:
    half = bits.view(np.float16)
    finite = half[np.isfinite(half)][:, None]
    assert np.array_equal(widen(finite, "float16"), finite.astype(np.float64))
    assert np.array_equal(is_zero(finite, "float16"), finite == 0)
