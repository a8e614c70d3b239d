"""Do the decoder rows of a family of curve detectors lie on a circle?

Rows are normalised and centred, and each has an orientation theta. Two measures with different
assumptions are compared with chance, which is estimated by permuting the orientations.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from .gap_chance import compare

MODES = 4
PERMUTATIONS = 999  # for the chance level of `order`
MODE_PERMUTATIONS = 50  # for that of the modes
FEWEST = 6  # rows; fewer lie on some circle in any case
NEIGHBOURS = 15


@final
@dataclass(frozen=True)
class Circle:
    """How closely decoder rows follow the orientations of their latents.

    order:  circular correlation of the angle in the first two principal components with the
            orientation, |mean exp(i(phi -+ theta))|, in the better of both senses; 1 for a circle
    chance: 95th percentile of `order` with permuted orientations
    p:      probability of an `order` as high with permuted orientations
    modes:  fraction of the rows' variance linear in cos(k theta) and sin(k theta), k = 1 ... 4
    modes_chance: mean fraction of mode 1 with permuted orientations
    """

    count: int
    order: float
    chance: float
    p: float
    modes: tuple[float, ...]
    modes_chance: float


def measure_circle(
    rows_SD: Float[np.ndarray, "s d"], orientations: Sequence[float], seed: int = 0
) -> Circle | None:
    """Measure rows with their orientations in degrees; None for fewer than six rows."""
    if len(rows_SD) < FEWEST:
        return None
    theta_S = np.deg2rad(np.asarray(orientations, dtype=float))
    x_SD = centred(rows_SD)
    plane_SP = principal(x_SD, 2)
    rng = np.random.default_rng(seed)
    permuted = [rng.permutation(theta_S) for _ in range(PERMUTATIONS)]
    by_chance = [angular_order(plane_SP, some_S) for some_S in permuted]
    first_modes = [fourier_fractions(x_SD, some_S)[0] for some_S in permuted[:MODE_PERMUTATIONS]]
    order = angular_order(plane_SP, theta_S)
    return Circle(
        len(x_SD),
        order,
        float(np.quantile(by_chance, 0.95)),
        compare(order, np.array(by_chance), large=True).p,
        fourier_fractions(x_SD, theta_S),
        float(np.mean(first_modes)),
    )


def centred(rows_SD: Float[np.ndarray, "s d"]) -> Float[np.ndarray, "s d"]:
    """Rows of norm 1, minus their mean."""
    unit_SD = rows_SD / np.maximum(np.linalg.norm(rows_SD, axis=1, keepdims=True), 1e-30)
    return np.asarray(unit_SD - unit_SD.mean(axis=0), dtype=np.float64)


def principal(x_SD: Float[np.ndarray, "s d"], count: int) -> Float[np.ndarray, "s p"]:
    """The first principal components of centred rows, signed so that the largest value of each is
    positive."""
    u, s, _ = np.linalg.svd(x_SD, full_matrices=False)
    scores = (u * s)[:, :count]
    signs = np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])])
    return np.asarray(scores * signs)


def angular_order(plane_SP: Float[np.ndarray, "s 2"], theta_S: Float[np.ndarray, " s"]) -> float:
    """The larger of |mean exp(i (phi - theta))| and |mean exp(i (phi + theta))|, where phi is the
    angle in the plane.

    Components are first scaled to equal variance, so that an ellipse counts as a circle.
    """
    scaled = plane_SP / np.maximum(plane_SP.std(axis=0), 1e-30)
    phi_S = np.arctan2(scaled[:, 1], scaled[:, 0])
    return float(max(abs(np.exp(1j * (phi_S + sense * theta_S)).mean()) for sense in (-1, 1)))


def fourier_fractions(
    x_SD: Float[np.ndarray, "s d"], theta_S: Float[np.ndarray, " s"], modes: int = MODES
) -> tuple[float, ...]:
    """The fraction of the rows' variance that each Fourier mode adds by least squares.

    Orientations are unevenly spaced, so modes are not orthogonal: each counts only what the modes
    before it leave unexplained.
    """
    total = float((x_SD**2).sum())
    basis = [np.ones_like(theta_S)]
    left, fractions = x_SD - x_SD.mean(axis=0), []
    for k in range(1, modes + 1):
        basis += [np.cos(k * theta_S), np.sin(k * theta_S)]
        q, _ = np.linalg.qr(np.stack(basis, axis=1))
        rest = x_SD - q @ (q.T @ x_SD)
        fractions.append(float(((left**2).sum() - (rest**2).sum()) / max(total, 1e-30)))
        left = rest
    return tuple(fractions)


def umap_then_pca(rows_SD: Float[np.ndarray, "s d"], seed: int = 0) -> Float[np.ndarray, "s 3"]:
    """UMAP to four dimensions, then the first three principal components of the result.

    The same seed gives the same picture. Source: Gorton, The Missing Curve Detectors of
    InceptionV1 (2406.03662).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba and umap warn about their threads
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
