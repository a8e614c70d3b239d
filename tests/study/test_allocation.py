"""The allocation model against greedy allocation, the theory's exponents and known values."""

import heapq
import itertools
import time

import numpy as np
import pytest

from tendril.study.measures.allocation import (
    Kind,
    LossCurve,
    Measured,
    PowerLaw,
    Saturating,
    allocate,
    log_slope,
)

CURVES: list[LossCurve] = [
    PowerLaw(0.1),
    PowerLaw(0.7, shifted=True),
    PowerLaw(2.0),
    Saturating(1),
    Saturating(5, 0.2),
    Measured([0, 1, 2, 4, 8], [1.0, 0.6, 0.45, 0.3, 0.3]),
]


def ranks_of(kind: Kind, features: int) -> np.ndarray:
    """Ranks of the features of a kind."""
    count = int(np.floor(kind.shift + kind.fraction * features + 1e-9))
    return (np.arange(1, count + 1) - kind.shift) / kind.fraction


def greedy(
    latents: int, alpha: float, kinds: list[Kind], features: int
) -> tuple[list[list[int]], float]:
    """Give each latent to the feature that gains most; latents of each feature, and the loss."""
    ranks = [ranks_of(kind, features) for kind in kinds]
    total = sum(float((one ** -(1 + alpha)).sum()) for one in ranks)
    p = [one ** -(1 + alpha) / total for one in ranks]
    given = [[0] * len(one) for one in ranks]

    def gain(kind: int, i: int) -> float:
        k = np.array([given[kind][i] + 1.0])
        return float(p[kind][i] * kinds[kind].curve.gain(k)[0])

    heap = [(-gain(c, i), c, i) for c, one in enumerate(given) for i in range(len(one))]
    heapq.heapify(heap)
    for _ in range(latents):
        best, c, i = heapq.heappop(heap)
        if best >= 0:
            break
        given[c][i] += 1
        heapq.heappush(heap, (-gain(c, i), c, i))
    loss = sum(
        float((p[c] * kinds[c].curve.loss(np.array(one, float))).sum())
        for c, one in enumerate(given)
    )
    return given, loss


@pytest.mark.many_steps
def test_allocation_is_that_of_giving_each_latent_where_it_gains_most() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        alpha = float(rng.uniform(0.1, 2))
        features, latents = int(rng.integers(4, 60)), int(rng.integers(1, 400))
        kinds = [Kind(CURVES[int(rng.integers(len(CURVES)))])]
        if rng.random() < 0.4:
            share = float(rng.uniform(0.2, 0.8))
            two = rng.choice(len(CURVES), 2, replace=False)
            kinds = [Kind(CURVES[two[0]], share), Kind(CURVES[two[1]], 1 - share)]
        found = allocate(latents, alpha, kinds, features)
        given, loss = greedy(latents, alpha, kinds, features)
        unfolded = [[0] * len(one) for one in given]
        for block in found.blocks:
            for i in range(block.first, block.last + 1):
                unfolded[block.kind][i - 1] = block.latents
        assert found.loss == pytest.approx(loss, rel=1e-9), (alpha, features, latents, kinds)
        assert sum(map(sum, unfolded)) + found.unused == latents
        assert found.features == sum(n > 0 for one in unfolded for n in one)
        flat = all(isinstance(kind.curve, PowerLaw) for kind in kinds)
        assert not flat or unfolded == given, "gains differ, so the best allocation is the only one"


def test_greedy_allocation_is_the_best_of_all() -> None:
    kinds = [Kind(PowerLaw(0.3))]
    _, loss = greedy(7, 0.5, kinds, 4)
    p = np.arange(1, 5.0) ** -1.5
    p /= p.sum()
    all_of_them = (n for n in itertools.product(range(8), repeat=4) if sum(n) == 7)
    best = min(float((p * PowerLaw(0.3).loss(np.array(n, float))).sum()) for n in all_of_them)
    assert loss == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("beta", [0.01, 0.05, 0.1, 0.2])
def test_exponents_where_manifolds_absorb_latents(beta: float, shifted: bool) -> None:
    sizes = np.logspace(6, 9, 4)
    found = [allocate(int(n), 0.5, [Kind(PowerLaw(beta, shifted))]) for n in sizes]
    features = log_slope(sizes, np.array([float(one.features) for one in found]))
    losses = log_slope(sizes, np.array([one.loss for one in found]))
    assert features.slope == pytest.approx((1 + beta) / 1.5, abs=0.02)
    assert losses.slope == pytest.approx(-beta, abs=0.02)


def test_exponents_where_each_latent_finds_a_feature() -> None:
    sizes = np.logspace(6, 9, 4)
    for beta in (1.0, 2.0):
        found = [allocate(int(n), 0.5, [Kind(PowerLaw(beta))]) for n in sizes]
        features = log_slope(sizes, np.array([float(one.features) for one in found]))
        losses = log_slope(sizes, np.array([one.loss for one in found]))
        assert features.slope == pytest.approx(1.0, abs=0.02)
        assert losses.slope == pytest.approx(-0.5, abs=0.02)


def test_known_numbers_of_features() -> None:
    """D at alpha = 0.5, N = 1e8.

    For beta = 1 the first latent gains 1 and the k-th 1 / (k (k - 1)), so that floor(D x_k)
    features have a k-th latent, with x_k = (k (k - 1))^(-2/3), and these sum to N.
    """
    known = {
        (0.01, False): (2.665e6, 2.675e6),
        (0.05, False): (1.365e6, 1.375e6),
        (0.1, False): (1.395e6, 1.405e6),
        (0.2, False): (2.15e6, 2.25e6),
        (0.01, True): (9.75e4, 9.85e4),
        (0.1, True): (2.25e5, 2.35e5),
        (0.5, True): (4.55e6, 4.65e6),
        (1.0, True): (2.05e7, 2.15e7),
    }
    for (beta, shifted), (low, high) in known.items():
        found = allocate(10**8, 0.5, [Kind(PowerLaw(beta, shifted))])
        assert low <= found.features <= high, (beta, shifted, found.features)
    d = allocate(10**8, 0.5, [Kind(PowerLaw(1.0))]).features
    k = np.arange(2.0, 1e6)
    assert d + np.floor(d * (k * (k - 1)) ** (-2 / 3)).sum() == pytest.approx(1e8, rel=1e-4)


def test_a_thousand_million_latents_take_seconds() -> None:
    start = time.process_time()
    found = allocate(10**9, 0.5, [Kind(PowerLaw(0.1))], features=10**9)
    assert time.process_time() - start < 10
    assert len(found.blocks) < 20_000
    held = sum((block.last - block.first + 1) * block.latents for block in found.blocks)
    assert held == 10**9 and found.unused == 0


def test_latents_that_lower_no_loss_are_left() -> None:
    found = allocate(100, 1.0, [Kind(Saturating(2))], features=10)
    assert found.unused == 80 and found.features == 10
    assert [block.latents for block in found.blocks] == [2] and found.loss == pytest.approx(0)


def test_a_measured_curve_is_its_convex_hull() -> None:
    curve = Measured([0, 1, 2, 3, 4], [1.0, 0.9, 0.4, 0.5, 0.35])
    np.testing.assert_allclose(curve.loss(np.arange(6.0)), [1, 0.7, 0.4, 0.375, 0.35, 0.35])
    np.testing.assert_allclose(curve.gain(np.arange(1.0, 6)), [0.3, 0.3, 0.025, 0.025, 0])
    with pytest.raises(ValueError, match="must be n = 0"):
        Measured([1, 2], [1.0, 0.5])


def test_slopes_and_their_errors() -> None:
    x = np.array([1.0, 10, 100, 1000])
    exact = log_slope(x, 3 * x**-0.7)
    assert exact.slope == pytest.approx(-0.7) and exact.error == pytest.approx(0, abs=1e-9)
    rng = np.random.default_rng(0)
    errors, slopes = [], []
    for _ in range(300):
        noisy = log_slope(x, x**0.5 * np.exp(0.2 * rng.normal(size=4)))
        slopes.append(noisy.slope)
        errors.append(noisy.error or 0)
    assert np.std(slopes) == pytest.approx(float(np.sqrt(np.mean(np.square(errors)))), rel=0.15)
    with pytest.raises(ValueError, match="two positive points"):
        log_slope(np.array([1.0, 1.0]), np.array([1.0, 2.0]))
