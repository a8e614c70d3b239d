"""Units taken apart into the latents that write them.

A dictionary reconstructs unit u as x_u = b_u + sum_i z_i W_dec[i, u]. Which few latents do
that, and how well, is told by the variance of the unit that they explain on rows of inputs
that neither the dictionary nor the choice has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..measures.curve_scores import angle_between

CANDIDATES = 64
PEAK = 0.4
"""Least height of a second peak, over the first."""
DIP = 0.7
"""How far a tuning curve falls between two peaks, at most this share of the lower one."""
ECHO = 30.0
"""Degrees about 180 within which a second peak is an echo: the unit is one of lines."""


@dataclass(frozen=True)
class Piece:
    """A latent that a unit is made of: decoder weight, and the share of the unit's held-out
    variance that this and the pieces before it explain together."""

    latent: int
    weight: float
    explained: float


def peaks(radial_A: Float[np.ndarray, " a"], orientations: Sequence[float]) -> list[float]:
    """The orientations of the peaks of a tuning curve, highest first.

    A further peak counts from PEAK of the highest on, if the curve falls to DIP of it or lower
    on both ways to every peak that was counted before.
    """
    count, top = len(radial_A), float(radial_A.max())
    if top <= 0:
        return []
    is_top = (radial_A >= np.roll(radial_A, 1)) & (radial_A > np.roll(radial_A, -1))
    tops = [int(i) for i in np.flatnonzero(is_top & (radial_A >= PEAK * top))]
    found: list[int] = []
    for place in sorted(tops, key=lambda i: (-float(radial_A[i]), i)):
        if all(_parted(radial_A, place, other, count) for other in found):
            found.append(place)
    return [float(orientations[i]) for i in found]


def _parted(radial_A: np.ndarray, lower: int, higher: int, count: int) -> bool:
    forth = [(lower + i) % count for i in range((higher - lower) % count + 1)]
    back = [(higher + i) % count for i in range((lower - higher) % count + 1)]
    return all(radial_A[way].min() <= DIP * radial_A[lower] for way in (forth, back))


def doubled(found: Sequence[float]) -> bool:
    """Whether peaks are those of two curves, and not of a line, which has one 180 degrees off."""
    return len(found) >= 2 and angle_between(found[0], found[1]) < 180 - ECHO


def take_apart(
    unit_N: Float[np.ndarray, " n"],
    z_NS: Float[np.ndarray, "n s"],
    weights_S: Float[np.ndarray, " s"],
    count: int,
    held_unit_M: Float[np.ndarray, " m"],
    held_z_MS: Float[np.ndarray, "m s"],
) -> list[Piece]:
    """The latents that explain a unit best, by orthogonal matching pursuit.

    In each round the latent that, by least squares together with those chosen, leaves least
    of the unit on the rows [N] is taken, among those that write the unit upwards
    (W_dec[i, u] > 0) and most of it; `explained` is 1 - FVU of that fit on held-out rows [M].
    """
    mass_S = np.where(weights_S > 0, weights_S * z_NS.std(axis=0), 0.0)
    pool = [int(i) for i in np.argsort(-mass_S, kind="stable")[:CANDIDATES] if mass_S[i] > 0]
    chosen: list[int] = []
    pieces: list[Piece] = []
    while len(chosen) < count and len(chosen) < len(pool):
        best = _next(unit_N, z_NS, chosen, [i for i in pool if i not in chosen])
        chosen.append(best)
        share = explained(unit_N, z_NS[:, chosen], held_unit_M, held_z_MS[:, chosen])
        pieces.append(Piece(best, float(weights_S[best]), share))
    return pieces


def explained(
    unit_N: Float[np.ndarray, " n"],
    z_NK: Float[np.ndarray, "n k"],
    held_unit_M: Float[np.ndarray, " m"],
    held_z_MK: Float[np.ndarray, "m k"],
) -> float:
    """1 - (squared error) / (squared distance from the mean) on held-out rows, of the least
    squares fit, with a constant, on the others."""
    fit, *_ = np.linalg.lstsq(_with_one(z_NK), unit_N, rcond=None)
    error_M = held_unit_M - _with_one(held_z_MK) @ fit
    spread_M = held_unit_M - held_unit_M.mean()
    return float(1 - (error_M @ error_M) / max(float(spread_M @ spread_M), 1e-30))


def _next(unit_N: np.ndarray, z_NS: np.ndarray, chosen: list[int], pool: list[int]) -> int:
    """The candidate whose part orthogonal to those chosen explains most of what is left."""
    q_NK, _ = np.linalg.qr(_with_one(z_NS[:, chosen]))
    left_N = unit_N - q_NK @ (q_NK.T @ unit_N)
    z_NC = z_NS[:, pool]
    z_NC = z_NC - q_NK @ (q_NK.T @ z_NC)
    length_C = np.maximum(np.linalg.norm(z_NC, axis=0), 1e-12)
    return pool[int(np.argmax(np.abs(left_N @ z_NC) / length_C))]


def _with_one(z_NK: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(z_NK), 1)), z_NK], axis=1)
