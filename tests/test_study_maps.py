"""Maps of latents: what is alike lies near."""

import numpy as np

from study.readings import scaled_map, umap_map


def test_umap_of_distances_keeps_families_together() -> None:
    family = np.repeat([0, 1, 2], 10)
    noise = np.random.default_rng(0).uniform(0, 0.05, (30, 30))
    likeness = np.where(family[:, None] == family, 0.9, 0.1) + (noise + noise.T) / 2
    np.fill_diagonal(likeness, 1)
    for drawn in (umap_map(likeness), scaled_map(likeness)):
        assert drawn.shape == (30, 2) and np.isfinite(drawn).all()
        apart = np.linalg.norm(drawn[:, None] - drawn, axis=2)
        np.fill_diagonal(apart, np.inf)
        assert (family[apart.argmin(axis=1)] == family).all()
