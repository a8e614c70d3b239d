"""Whether the decoder rows of a curve family lie on a circle, in numbers and in pictures.

Rows are centred and of norm 1; an orientation theta belongs to each. Two numbers ask the same
without each other's assumptions, each with what chance gives: the same rows, their
orientations dealt out anew.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MODES = 4
DEALS = 200  # permutations that tell what chance gives
FEWEST = 6  # rows that a circle can be asked of
NEIGHBOURS = 15


@dataclass(frozen=True)
class Circle:
    """How much decoder rows follow the orientations of their latents.

    order:  circular correlation of the angle in the first two principal components with the
            orientation, |mean exp(i(phi -+ theta))|, either way round; 1 for a circle
    chance: the 95th percentile of `order` with the orientations dealt out anew
    modes:  share of the rows' variance linear in cos(k theta) and sin(k theta), k = 1 ... 4
    modes_chance: the mean share of one mode by chance
    """

    count: int
    order: float
    chance: float
    modes: tuple[float, ...]
    modes_chance: float


def measure_circle(
    rows_SD: Float[np.ndarray, "s d"], orientations: Sequence[float], seed: int = 0
) -> Circle | None:
    """The numbers; None of fewer than six rows, which lie on some circle anyhow."""
    if len(rows_SD) < FEWEST:
        return None
    theta_S = np.deg2rad(np.asarray(orientations, dtype=float))
    x_SD = centred(rows_SD)
    plane_SP = principal(x_SD, 2)
    rng = np.random.default_rng(seed)
    dealt = [rng.permutation(theta_S) for _ in range(DEALS)]
    by_chance = [angular_order(plane_SP, some_S) for some_S in dealt]
    return Circle(
        len(x_SD),
        angular_order(plane_SP, theta_S),
        float(np.quantile(by_chance, 0.95)),
        fourier_shares(x_SD, theta_S),
        float(np.mean([fourier_shares(x_SD, some_S)[0] for some_S in dealt[:50]])),
    )


def centred(rows_SD: Float[np.ndarray, "s d"]) -> Float[np.ndarray, "s d"]:
    """Rows brought to norm 1, then their mean taken away."""
    unit_SD = rows_SD / np.maximum(np.linalg.norm(rows_SD, axis=1, keepdims=True), 1e-30)
    return np.asarray(unit_SD - unit_SD.mean(axis=0), dtype=np.float64)


def principal(x_SD: Float[np.ndarray, "s d"], count: int) -> Float[np.ndarray, "s p"]:
    """The first principal components of centred rows; signs such that the largest is positive."""
    u, s, _ = np.linalg.svd(x_SD, full_matrices=False)
    scores = (u * s)[:, :count]
    signs = np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])])
    return np.asarray(scores * signs)


def angular_order(plane_SP: Float[np.ndarray, "s 2"], theta_S: Float[np.ndarray, " s"]) -> float:
    """|mean exp(i (phi -+ theta))|, the larger of both senses, phi the angle in the plane.

    Components are scaled to equal variance first, so that an ellipse counts as a circle.
    """
    scaled = plane_SP / np.maximum(plane_SP.std(axis=0), 1e-30)
    phi_S = np.arctan2(scaled[:, 1], scaled[:, 0])
    return float(max(abs(np.exp(1j * (phi_S + sense * theta_S)).mean()) for sense in (-1, 1)))


def fourier_shares(
    x_SD: Float[np.ndarray, "s d"], theta_S: Float[np.ndarray, " s"], modes: int = MODES
) -> tuple[float, ...]:
    """The share of the rows' variance that each mode explains by least squares, the modes
    before it taken out: angles are uneven, so that the modes are not orthogonal."""
    total = float((x_SD**2).sum())
    basis = [np.ones_like(theta_S)]
    left, shares = x_SD - x_SD.mean(axis=0), []
    for k in range(1, modes + 1):
        basis += [np.cos(k * theta_S), np.sin(k * theta_S)]
        q, _ = np.linalg.qr(np.stack(basis, axis=1))
        rest = x_SD - q @ (q.T @ x_SD)
        shares.append(float(((left**2).sum() - (rest**2).sum()) / max(total, 1e-30)))
        left = rest
    return tuple(shares)


def umap_then_pca(rows_SD: Float[np.ndarray, "s d"], seed: int = 0) -> Float[np.ndarray, "s 3"]:
    """UMAP to four dimensions, then the first three principal components of these.

    The picture of Gorton, The Missing Curve Detectors (2406.03662). The same for a seed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba's and of umap's own, about their threads
        from umap import UMAP

        drawn = UMAP(
            n_components=4,
            n_neighbors=min(NEIGHBOURS, len(rows_SD) - 1),
            metric="cosine",
            init="random" if len(rows_SD) < NEIGHBOURS else "spectral",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(np.asarray(rows_SD, dtype=np.float32))
    x_SP = np.asarray(drawn, dtype=np.float64)
    return principal(x_SP - x_SP.mean(axis=0), 3)
