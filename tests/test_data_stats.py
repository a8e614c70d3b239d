import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.rows import decode_rows, encode_rows, quantise
from data.stats import describe_rows, moments_of, no_moments


@given(st.lists(st.integers(0, 6000), min_size=1, max_size=4), st.integers(0, 99))
def test_merged_moments_are_numpys(lengths: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    parts = [generator.normal(50, 3, (n, 2)).astype(np.float16) for n in lengths]
    total = no_moments(2)
    for part in parts:
        total = total.merge(moments_of(part))
    rows = np.concatenate(parts).astype(np.float64)
    assert total.count == len(rows)
    if len(rows):
        np.testing.assert_allclose(total.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(total.variance, rows.var(0), rtol=1e-10, atol=1e-12)


def test_nothing_has_no_variance() -> None:
    assert (no_moments(3).variance == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8"])
def test_moments_are_numpys_whatever_cancels(dtype: str) -> None:
    """Channels far from zero, without any spread, of both signs, all zero, and mostly zero."""
    random = np.random.default_rng(0)
    x = random.standard_normal((3000, 6)).astype(np.float32)
    rows = np.stack([x[:, 0], 100 + x[:, 1] / 4, x[:, 2] * 0 - 7, x[:, 3] * 0], axis=1)
    rows = np.concatenate([rows, np.maximum(x[:, 4:] - 1, 0)], axis=1)
    stored, scale = quantise(rows, "") if dtype == "int8" else (encode_rows(rows, dtype, ""), None)
    moments, norms = describe_rows(stored, dtype, scale)
    exact = decode_rows(stored, dtype, scale).astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(moments.variance, exact.var(0), rtol=1e-11, atol=1e-25)
    assert np.array_equal(moments.zeros, (exact == 0).sum(0))
    np.testing.assert_allclose(norms, np.linalg.norm(exact, axis=1), rtol=1e-7)
    assert moments.variance.min() >= 0
