"""Slopes of firing frequency, neighbours of decoder rows, and latents a manifold."""

import numpy as np
import pytest

from tendril.study.measures.decoder_geometry import firing_slope, neighbours, random_like
from tendril.study.measures.manifold_counts import count_latents


def test_the_slope_of_a_power_law() -> None:
    frequency = 0.3 * np.arange(1, 2001.0) ** -0.74
    found = firing_slope(np.random.default_rng(0).permutation(frequency), 10, 1000)
    assert found and found.slope == pytest.approx(-0.74, abs=1e-6) and 0 < found.error < 0.2
    assert (found.first, found.last) == (10, 1000)
    with_dead = firing_slope(np.append(frequency, np.zeros(50)), 10)
    assert with_dead and with_dead.last == 2000
    assert firing_slope(frequency[:15], 10) is None


def test_neighbours_by_hand_and_local_dimension() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 6)) * rng.uniform(0.1, 9, (50, 1))
    found = neighbours(rows)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T - 3 * np.eye(50)
    assert found is not None
    np.testing.assert_allclose(found.cosine_S, cosine.max(axis=1), atol=1e-6)
    for dimension in (1, 2, 5):  # of a sphere in ten dimensions
        on_sphere = np.zeros((3000, 10))
        on_sphere[:, : dimension + 1] = rng.standard_normal((3000, dimension + 1))
        near = neighbours(on_sphere)
        assert near and near.dimension == pytest.approx(dimension, rel=0.1)
    assert neighbours(rows[:2]) is None
    same = neighbours(np.ones((10, 3)))
    assert same and np.isnan(same.dimension)


def test_random_directions_have_the_same_second_moments() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((4000, 5)) * np.array([4, 2, 1, 0.5, 0])
    drawn = random_like(rows)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(drawn.T @ drawn / 4000, unit.T @ unit / 4000, atol=0.05)


def test_latents_belong_to_the_subspace_that_holds_most_of_them() -> None:
    basis = np.linalg.qr(np.random.default_rng(2).standard_normal((9, 9)))[0].T
    bases = basis[:6].reshape(3, 2, 9)
    rows = np.stack([
        5 * bases[0, 0] + bases[0, 1],
        bases[2, 1] + 0.5 * bases[0, 0],
        bases[2, 0] + 1.2 * basis[8],
        basis[7],
    ])  # fmt: skip
    found = count_latents(rows, bases)
    assert found.latents_F.tolist() == [1, 0, 1] and found.none == 2 and found.found == 2
