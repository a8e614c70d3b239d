"""Maps of latents: points on a plane, near each other where the latents are similar."""

import warnings

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import eigsh

NEIGHBOURS = 15  # of UMAP
FEWEST_SCALED, FEWEST_UMAP = 4, 16  # latents for which a map is drawn


def latent_maps(
    likeness_FF: Float[np.ndarray, "f f"], *, umap: bool = True
) -> dict[str, Float[np.ndarray, "f 2"]]:
    """The maps of a matrix of cosines by their names; those for which there are enough latents."""
    maps = {}
    if len(likeness_FF) >= FEWEST_SCALED:
        maps["Classical scaling"] = scaled_map(likeness_FF)
    if umap and len(likeness_FF) >= FEWEST_UMAP:
        maps["UMAP"] = umap_map(likeness_FF)
    return maps


def scaled_map(likeness_FF: Float[np.ndarray, "f f"]) -> Float[np.ndarray, "f 2"]:
    """Classical scaling of the distances 1 - likeness: the two leading principal coordinates
    (Torgerson, 1952). Needs 4 latents or more."""
    square_FF = (1 - likeness_FF.astype(np.float64)).clip(0) ** 2
    np.fill_diagonal(square_FF, 0)
    mean_F = square_FF.mean(axis=0)
    inner_FF = -0.5 * (square_FF - mean_F - mean_F[:, None] + mean_F.mean())
    if np.abs(inner_FF).max() <= 1e-12:  # all alike, on which the iteration cannot start
        return np.zeros((len(inner_FF), 2))
    values_2, at_F2 = eigsh(inner_FF, k=2, which="LA", v0=np.cos(np.arange(len(likeness_FF))))
    return np.asarray(at_F2 * np.sqrt(values_2.clip(0)))[:, ::-1]


def umap_map(likeness_FF: Float[np.ndarray, "f f"], seed: int = 0) -> Float[np.ndarray, "f 2"]:
    """UMAP of the distances 1 - likeness (McInnes et al., 1802.03426). Small distances keep their
    meaning on the map; large ones do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and umap warn about their own threads
        from umap import UMAP

        reducer = UMAP(
            n_components=2,
            metric="precomputed",
            n_neighbors=min(NEIGHBOURS, len(likeness_FF) - 1),
            random_state=seed,
            n_jobs=1,
        )
        distance_FF = (1 - likeness_FF.astype(np.float64)).clip(0)
        np.fill_diagonal(distance_FF, 0)
        at_F2: np.ndarray = reducer.fit_transform((distance_FF + distance_FF.T) / 2)
    return at_F2.astype(np.float64)
