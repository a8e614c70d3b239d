"""Correlations, ranks, moments, AUROC and intervals against scipy, scikit-learn and theory."""

import numpy as np
import pytest
from scipy.stats import kurtosis, pearsonr, rankdata, skew, spearmanr
from sklearn.metrics import roc_auc_score

from tendril.study.measures.score_statistics import (
    auroc,
    correlation,
    interval,
    is_constant,
    moments,
    rank_correlation,
    ranks,
)

RNG = np.random.default_rng(0)


def test_correlations_are_those_of_scipy_ties_included():
    for _ in range(20):
        a = RNG.integers(0, 4, 60).astype(float)
        b = a + RNG.integers(0, 5, 60)
        assert correlation(a, b).value == pytest.approx(pearsonr(a, b).statistic)
        assert rank_correlation(a, b).value == pytest.approx(spearmanr(a, b).statistic)
        assert ranks(a) == pytest.approx(rankdata(a))


def test_constant_values_have_no_correlation_at_any_scale():
    varied = np.arange(5.0)
    for constant in (np.zeros(5), np.full(5, 1e9), np.full(5, 3.0) + np.arange(5) * 1e-9):
        assert is_constant(constant)
        assert correlation(varied, constant).value is None
        assert "true" in correlation(constant, varied).undefined
    tiny = np.array([0.0, 1e-12, 0.0, 2e-12, 0.0])  # small, and yet not constant
    assert correlation(tiny, tiny).value == pytest.approx(1.0)
    assert is_constant(np.zeros(0)) and is_constant(np.ones(1))


@pytest.mark.parametrize("zeros", [0, 5, 4000])
def test_moments_count_the_silent_tokens(zeros):
    active = RNG.exponential(2, 300).astype(np.float32)
    whole = np.concatenate([active, np.zeros(zeros)])
    third, fourth = moments(active, len(whole))
    assert third == pytest.approx(skew(whole.astype(np.float64)), rel=1e-5)
    assert fourth == pytest.approx(kurtosis(whole.astype(np.float64)), rel=1e-5)
    assert moments(np.zeros(0, np.float32), 10) == (None, None)
    assert moments(np.full(10, 2.0, np.float32), 10) == (None, None)


def test_auroc_counts_ties_half():
    high, low = RNG.integers(0, 6, 30).astype(float), RNG.integers(0, 4, 40).astype(float)
    truth = [1] * 30 + [0] * 40
    assert auroc(high, low) == pytest.approx(roc_auc_score(truth, np.concatenate([high, low])))
    assert auroc(np.ones(3), np.ones(4)) == 0.5


def test_intervals_hold_the_mean_as_often_as_they_say():
    """Of intervals of 40 normal values 95 % hold the true mean, within the error of 300 draws and
    of 40 values, for which a percentile interval is a little too narrow."""
    draws = RNG.normal(0.3, 1, (300, 40))
    found = [interval(row.tolist(), seed) for seed, row in enumerate(draws)]
    inside = np.mean([low <= 0.3 <= high for low, high in found])
    assert 0.89 < inside < 0.985
    assert interval([1.0], 0) is None and interval([2.0, 2.0], 0) == (2.0, 2.0)
    assert interval([1.0, 2.0, 5.0], 7) == interval([1.0, 2.0, 5.0], 7)
