"""Maps of latents: similar latents are near each other."""

from collections.abc import Callable

import numpy as np
import pytest

from tendril.study.measures.latent_maps import latent_maps, scaled_map, umap_map


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


def test_a_map_is_drawn_only_where_there_are_enough_latents() -> None:
    assert latent_maps(np.eye(3)) == {}
    assert list(latent_maps(np.eye(15))) == ["Classical scaling"]
    assert list(latent_maps(np.eye(20), umap=False)) == ["Classical scaling"]


def test_latents_that_are_all_alike_lie_at_one_place() -> None:
    assert not scaled_map(np.ones((6, 6), np.float32)).any()
