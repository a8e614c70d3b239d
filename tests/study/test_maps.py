"""Maps of latents: what is alike lies near."""

from collections.abc import Callable

import numpy as np
import pytest

from tendril.study.symmetry.analysis import scaled_map, umap_map


@pytest.mark.parametrize(
    "drawn_by",
    [scaled_map, pytest.param(umap_map, marks=pytest.mark.slow)],  # numba compiles long
)
def test_a_map_of_distances_keeps_families_together(
    drawn_by: Callable[[np.ndarray], np.ndarray],
) -> None:
    family = np.repeat([0, 1, 2], 10)
    noise = np.random.default_rng(0).uniform(0, 0.05, (30, 30))
    likeness = np.where(family[:, None] == family, 0.9, 0.1) + (noise + noise.T) / 2
    np.fill_diagonal(likeness, 1)
    drawn = drawn_by(likeness)
    assert drawn.shape == (30, 2) and np.isfinite(drawn).all()
    apart = np.linalg.norm(drawn[:, None] - drawn, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (family[apart.argmin(axis=1)] == family).all()
