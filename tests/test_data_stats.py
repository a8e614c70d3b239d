import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.stats import moments_of, no_moments


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
