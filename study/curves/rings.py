"""Curves planted at any orientation, a ring for each radius: which latents point along them.

Where orientation is continuous, several latents share a ring, neighbours are alike, and some curve
latent lies near every orientation. So each planted reference orientation is judged by the latent
whose decoder row points most along its direction: by their cosine, and by the orientation that the
latent prefers among drawn curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int

from tendril.models.subjects.synthetic.planted_features import REPRESENTS

from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import angle_between
from .truth import RECOVERED, Truth

SILENT = 180.0
"""Degrees of error of a latent that no drawn curve excites, and so has no orientation."""
AT_RANDOM = 2 * RECOVERED / 360
"""Probability that a random orientation lies within 6 degrees of another."""


@final
@dataclass(frozen=True, eq=False)
class Ring:
    """The planted curves of one radius, in order of orientation.

    planted:   their orientations in degrees
    latent:    the latent whose decoder row points most along each
    cosine:    its cosine with the planted direction
    found:     the orientation that it prefers among drawn curves; NaN for one that is silent
    error:     degrees between the two orientations; SILENT for one that is silent
    best_radius: the radius in pixels to which it responds most
    chance:    mean greatest cosine of as many random directions
    by_chance: how often their greatest cosine is at least 0.8
    nearest:   degrees to the curve latent nearest in orientation, whichever direction it has
    unit_cosine: cosine of the unit whose axis is nearest
    """

    radius: float
    planted: Float[np.ndarray, " p"]
    latent: Int[np.ndarray, " p"]
    cosine: Float[np.ndarray, " p"]
    found: Float[np.ndarray, " p"]
    error: Float[np.ndarray, " p"]
    best_radius: Float[np.ndarray, " p"]
    chance: Float[np.ndarray, " p"]
    by_chance: Float[np.ndarray, " p"]
    nearest: Float[np.ndarray, " p"]
    unit_cosine: Float[np.ndarray, " p"]

    @property
    def represented(self) -> int:
        """How many have a latent along them, with a cosine of at least 0.8."""
        return int((self.cosine >= REPRESENTS).sum())

    @property
    def oriented(self) -> int:
        """How many have a latent along them that prefers an orientation within 6 degrees."""
        return int(((self.cosine >= REPRESENTS) & (self.error <= RECOVERED)).sum())

    def figures(self) -> dict[str, Any]:
        """The counts and distributions as JSON values."""
        along = self.cosine >= REPRESENTS
        return {
            "radius": self.radius,
            "planted": len(self.planted),
            "represented": self.represented,
            "represented_by_chance": round(float(self.by_chance.sum()), 2),
            "represented_by_units": int((self.unit_cosine >= REPRESENTS).sum()),
            "oriented": self.oriented,
            "oriented_by_chance": round(float(self.by_chance.sum()) * AT_RANDOM, 2),
            "latents": len(set(self.latent[along].tolist())),
            "cosine": quantiles(self.cosine, 3),
            "cosine_chance": round(float(np.median(self.chance)), 3),
            "unit_cosine": round(float(np.median(self.unit_cosine)), 3),
            "error": quantiles(self.error, 1),
            "within": int((self.error <= RECOVERED).sum()),
            "within_by_chance": round(len(self.planted) * AT_RANDOM, 1),
            "best_radius": round(float(np.median(self.best_radius)), 1),
            "nearest_within": int((self.nearest <= RECOVERED).sum()),
        }


def quantiles(values: Float[np.ndarray, " p"], digits: int) -> list[float]:
    """The median, and the quantiles of 5 and 95 %."""
    return [round(float(value), digits) for value in np.quantile(values, [0.5, 0.05, 0.95])]


def rings_of(truths: Sequence[Truth], latents: CurveFamily) -> list[Ring]:
    """The rings of planted curves, in order of radius; none without directions at the site."""
    if any(truth.aligned is None or truth.axis is None for truth in truths):
        return []
    radii = sorted({truth.radius for truth in truths})
    return [_ring(radius, [t for t in truths if t.radius == radius], latents) for radius in radii]


def _ring(radius: float, truths: Sequence[Truth], latents: CurveFamily) -> Ring:
    ordered = sorted(truths, key=lambda truth: truth.orientation)
    pairs = [truth.aligned for truth in ordered if truth.aligned]
    chosen = [latent for latent, _ in pairs]
    found = [latents.orientation(i) if latents.scores.max[i] > 0 else np.nan for i in chosen]
    errors = [
        SILENT if np.isnan(angle) else angle_between(angle, truth.orientation)
        for angle, truth in zip(found, ordered, strict=True)
    ]
    return Ring(
        radius,
        np.array([truth.orientation for truth in ordered]),
        np.array(chosen),
        np.array([cosine for _, cosine in pairs]),
        np.array(found),
        np.array(errors),
        np.array([latents.scores.radius[i] for i in chosen], float),
        np.array([truth.chance for truth in ordered]),
        np.array([truth.by_chance for truth in ordered]),
        np.array([truth.error("latent") for truth in ordered]),
        np.array([truth.axis[1] for truth in ordered if truth.axis]),
    )


def ring_figures(rings: Sequence[Ring]) -> dict[str, Any]:
    """Totals over the rings, and the figures of each."""
    each = [ring.figures() for ring in rings]
    names = ("represented", "represented_by_chance", "oriented", "oriented_by_chance")
    return {name: round(sum(one[name] for one in each), 2) for name in names} | {"rings": each}
