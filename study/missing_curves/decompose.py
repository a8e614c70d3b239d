"""Decompose units into the latents that write them.

A dictionary reconstructs unit u as x_u = b_u + sum_i z_i W_dec[i, u]. A few latents are chosen on
some rows, and scored by the fraction of the unit's variance that they explain on rows that neither
the dictionary nor the choice has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float

from tendril.models.dictionaries.sae import SAE

from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import angle_between
from ..measures.image_examples import Patch

CANDIDATES = 64
PEAK = 0.4
"""Least height of a second peak, relative to the highest."""
DIP = 0.7
"""A tuning curve must fall to this fraction of the lower of two peaks, or below, between them."""
ECHO = 30.0
"""A second peak within this many degrees of the opposite direction is an echo: the unit detects
lines."""
STRONG = 0.25
"""Least maximum of a unit that is decomposed, relative to the strongest unit's."""


@final
@dataclass(frozen=True)
class Component:
    """A latent that contributes to a unit.

    `weight` is its decoder weight, and `explained` the fraction of the unit's held-out variance
    that this component and those before it explain together.
    """

    latent: int
    weight: float
    explained: float


def peaks(radial_A: Float[np.ndarray, " a"], orientations: Sequence[float]) -> list[float]:
    """The orientations of the peaks of a tuning curve, highest first.

    A further peak counts if it has at least PEAK of the height of the highest, and if the curve
    falls to DIP of it or lower on both ways to every peak counted before.
    """
    count, top = len(radial_A), float(radial_A.max())
    if top <= 0:
        return []
    is_top = (radial_A >= np.roll(radial_A, 1)) & (radial_A > np.roll(radial_A, -1))
    tops = [int(i) for i in np.flatnonzero(is_top & (radial_A >= PEAK * top))]
    found: list[int] = []
    for place in sorted(tops, key=lambda i: (-float(radial_A[i]), i)):
        if all(_separate(radial_A, place, other, count) for other in found):
            found.append(place)
    return [float(orientations[i]) for i in found]


def _separate(radial_A: np.ndarray, lower: int, higher: int, count: int) -> bool:
    forth = [(lower + i) % count for i in range((higher - lower) % count + 1)]
    back = [(higher + i) % count for i in range((lower - higher) % count + 1)]
    return all(radial_A[way].min() <= DIP * radial_A[lower] for way in (forth, back))


def two_curves(found: Sequence[float]) -> bool:
    """True if the two highest peaks are those of two curves. A line has peaks 180 degrees apart."""
    return len(found) >= 2 and angle_between(found[0], found[1]) < 180 - ECHO


def decompose(
    unit_N: Float[np.ndarray, " n"],
    z_NS: Float[np.ndarray, "n s"],
    weights_S: Float[np.ndarray, " s"],
    count: int,
    held_unit_M: Float[np.ndarray, " m"],
    held_z_MS: Float[np.ndarray, "m s"],
) -> list[Component]:
    """The `count` latents that explain a unit best, by orthogonal matching pursuit.

    Candidates are the 64 latents with positive decoder weight that contribute most to the unit.
    Each round adds the candidate that, in a least-squares fit together with those chosen before,
    leaves the smallest residual on the rows [N]. `explained` is 1 - FVU of that fit on the
    held-out rows [M].
    """
    mass_S = np.where(weights_S > 0, weights_S * z_NS.std(axis=0), 0.0)
    pool = [int(i) for i in np.argsort(-mass_S, kind="stable")[:CANDIDATES] if mass_S[i] > 0]
    chosen: list[int] = []
    components: list[Component] = []
    while len(chosen) < count and len(chosen) < len(pool):
        best = _next(unit_N, z_NS, chosen, [i for i in pool if i not in chosen])
        chosen.append(best)
        fraction = explained(unit_N, z_NS[:, chosen], held_unit_M, held_z_MS[:, chosen])
        components.append(Component(best, float(weights_S[best]), fraction))
    return components


def explained(
    unit_N: Float[np.ndarray, " n"],
    z_NK: Float[np.ndarray, "n k"],
    held_unit_M: Float[np.ndarray, " m"],
    held_z_MK: Float[np.ndarray, "m k"],
) -> float:
    """1 - FVU on held-out rows [M] of a least-squares fit, with a constant, on the rows [N]."""
    fit, *_ = np.linalg.lstsq(_with_one(z_NK), unit_N, rcond=None)
    error_M = held_unit_M - _with_one(held_z_MK) @ fit
    spread_M = held_unit_M - held_unit_M.mean()
    return float(1 - (error_M @ error_M) / max(float(spread_M @ spread_M), 1e-30))


def _next(unit_N: np.ndarray, z_NS: np.ndarray, chosen: list[int], pool: list[int]) -> int:
    """The candidate whose component orthogonal to those chosen explains most of the residual."""
    q_NK, _ = np.linalg.qr(_with_one(z_NS[:, chosen]))
    left_N = unit_N - q_NK @ (q_NK.T @ unit_N)
    z_NC = z_NS[:, pool]
    z_NC = z_NC - q_NK @ (q_NK.T @ z_NC)
    length_C = np.maximum(np.linalg.norm(z_NC, axis=0), 1e-12)
    return pool[int(np.argmax(np.abs(left_N @ z_NC) / length_C))]


def _with_one(z_NK: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(z_NK), 1)), z_NK], axis=1)


@final
@dataclass(frozen=True)
class Decomposition:
    """A unit and the latents of one run that write it."""

    unit: int
    peaks: Sequence[float]
    """Orientations of the peaks of its tuning curve, highest first."""
    components: Sequence[Component]
    all_latents: float
    """Fraction of the unit's held-out variance that the whole dictionary explains."""
    control: Sequence[float]
    """Fractions that as many latents of a random dictionary explain; empty without one."""
    patches: Sequence[Sequence[Patch]] = ()
    """Dataset examples of the unit, then of each component."""


def decompose_units(
    units: CurveFamily,
    chosen: Sequence[int],
    dictionary: SAE,
    control: SAE | None,
    rows: tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]],
    count: int,
    device: torch.device,
) -> list[Decomposition]:
    """Decompose the chosen units into `count` latents of a dictionary and of a control.

    `rows` are activations of the site: those on which components are chosen, and held-out ones.
    """
    fit_ND, held_MD = rows
    latents = [encode(dictionary, x, device) for x in rows]
    theirs = [encode(control, x, device) for x in rows] if control is not None else []
    W_SD, b_D = dictionary.W_dec.detach().cpu().numpy(), dictionary.b_dec

    def components(of: SAE, unit: int, z: Sequence[np.ndarray]) -> list[Component]:
        weights_S = of.W_dec[:, unit].detach().float().cpu().numpy()
        return decompose(fit_ND[:, unit], z[0], weights_S, count, held_MD[:, unit], z[1])

    found = []
    for unit in chosen:
        error_M = held_MD[:, unit] - latents[1] @ W_SD[:, unit] - float(b_D[unit])
        variance = max(float(held_MD[:, unit].var()), 1e-30)
        others = components(control, unit, theirs) if control is not None else []
        found.append(
            Decomposition(
                unit,
                peaks(units.radial[:, unit], units.orientations.tolist()),
                components(dictionary, unit, latents),
                float(1 - (error_M**2).mean() / variance),
                [component.explained for component in others],
            )
        )
    return found


def polysemantic(units: CurveFamily) -> list[int]:
    """The units whose tuning curves have the peaks of two curves, strongest first."""
    strongest = float(units.scores.max.max(initial=0.0))
    strong = np.flatnonzero(units.scores.max >= STRONG * strongest)
    angles = units.orientations.tolist()
    found = [int(u) for u in strong if two_curves(peaks(units.radial[:, u], angles))]
    return sorted(found, key=lambda u: -float(units.scores.max[u]))


def encode(
    dictionary: SAE, x_ND: Float[np.ndarray, "n d"], device: torch.device
) -> Float[np.ndarray, "n s"]:
    """The latents of many rows, 4096 rows at a time."""
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(x_ND).float(), 4096)
        return torch.cat([dictionary.encode(x.to(device)).cpu() for x in parts]).numpy()
