import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tendril.data.store import sums_compiled
from tendril.data.store.dtypes import DTYPES, decode_rows, encode_rows, quantise
from tendril.data.store.moments import describe_rows, moments_of, no_moments
from tendril.data.store.sums import sums_of


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
    """Channels far from zero, constant, of both signs, all zero, and mostly zero."""
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


def some_rows(rows: int, width: int, dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Stored rows: channels of very different scale, zeros of both signs, extreme values."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, width)) * np.exp(3 * random.standard_normal(width))
    x *= random.choice([0, -0.0, 1, 1, 1e-7], (rows, width))
    x[random.random((rows, width)) < 0.01] = 65504
    stored = x.clip(-65504, 65504).astype(np.float32)
    return quantise(stored, "") if dtype == "int8" else (encode_rows(stored, dtype, ""), None)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(0, 300), st.integers(2, 70), st.integers(0, 99))
def test_compiled_sums_are_numpys_bit_for_bit(dtype: str, rows: int, width: int, seed: int) -> None:
    stored, scale = some_rows(rows, width, dtype, seed)
    for ours, numpys in zip(
        sums_compiled.sums_of(stored, dtype, scale), sums_of(stored, dtype, scale), strict=True
    ):
        assert ours.dtype == numpys.dtype
        assert ours.tobytes() == numpys.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 480])
def test_a_description_is_the_same_compiled(dtype: str, width: int) -> None:
    """For several blocks, for strided rows, and for a single channel."""
    stored, scale = some_rows(2600, width, dtype, 0)
    stored, scale = stored[::2], None if scale is None else scale[::2]
    (plain, norms), (ours, our_norms) = (
        describe_rows(stored, dtype, scale, compiled=compiled) for compiled in (False, True)
    )
    assert norms.tobytes() == our_norms.tobytes()
    assert plain.count == ours.count == 1300
    for name in ("mean", "m2", "zeros"):
        assert getattr(plain, name).tobytes() == getattr(ours, name).tobytes(), name


def test_where_no_cache_can_be_written_it_is_compiled_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    njit = sums_compiled.numba.njit

    def refusing(cache: bool = False, **options: bool) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(sums_compiled.numba, "njit", refusing)
    assert sums_compiled._cached(lambda x: x + 1)(1) == 2
