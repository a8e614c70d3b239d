"""Joint tuning curves, and the orientations that follow from them.

A patch that excites detector u most is turned by delta past the angle at which u itself responds
most. That brings its curve to the orientation theta_u + delta, so detector v peaks at
delta_uv = theta_v - theta_u: photographs alone order the family.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from tendril.data.errors import ConfigError

from .curve_scores import half_width, mean_direction

LEAST_RESPONSE = 0.2
"""Responses to another detector's patches count from this fraction of a detector's maximum on its
own patches."""


@final
@dataclass(frozen=True)
class Detector:
    """A unit or a latent, with its orientation and tuning width on drawn curves, in degrees."""

    kind: str
    index: int
    orientation: float
    width: float

    @property
    def name(self) -> str:
        """E.g. `unit 387`."""
        return f"{self.kind} {self.index}"


@final
@dataclass(frozen=True)
class Joint:
    """Aligned responses of all detectors to the patches of each.

    curves [M, A, M]: the detector whose patches are shown, the turn past that detector's peak, and
    the detector recorded. Responses are means over patches, as fractions of the recorded
    detector's maximum on its own patches.
    """

    detectors: Sequence[Detector]
    curves: Float[np.ndarray, "m a m"]
    patches: Sequence[int]
    """Number of patches of each detector."""

    @property
    def step(self) -> float:
        """Degrees between turns."""
        return 360 / int(self.curves.shape[1])

    @property
    def widths(self) -> Float[np.ndarray, " m"]:
        """Full width at half maximum of each detector's aligned curve, in degrees."""
        own_AM = np.stack([self.curves[m, :, m] for m in range(len(self.curves))], axis=1)
        return half_width(own_AM)

    def orientations(self) -> Float[np.ndarray, " m"]:
        """Orientations measured on photographs, in degrees.

        delta_uv is the circular mean direction of v's curve over u's patches, weighted by its
        resultant length w_uv; the leading eigenvector of H_uv = w_uv exp(i delta_uv) holds the
        phases (angular synchronisation, Singer 2011). Differences leave one rotation of all
        phases free; it is fitted to the orientations on drawn curves.
        """
        count, turns = len(self.curves), np.arange(self.curves.shape[1]) * self.step
        H = np.zeros((count, count), dtype=np.complex128)
        for u in range(count):
            direction, resultant = mean_direction(np.maximum(self.curves[u], 0), turns)
            responds = self.curves[u].max(axis=0) >= LEAST_RESPONSE
            # conjugated, because u's phase times exp(i delta) is v's
            H[u] = np.where(responds, resultant, 0) * np.exp(-1j * np.deg2rad(direction))
        np.fill_diagonal(H, 1.0)
        _, vectors = np.linalg.eigh((H + H.conj().T) / 2)
        phase = np.angle(vectors[:, -1])
        drawn = np.deg2rad([d.orientation for d in self.detectors])
        turn = np.angle(np.exp(1j * (drawn - phase)).mean())
        return np.asarray(np.rad2deg(phase + turn) % 360)

    def errors(self) -> Float[np.ndarray, " m"]:
        """Orientation on photographs minus orientation on drawn curves, -180 to 180 degrees."""
        drawn = np.array([d.orientation for d in self.detectors])
        return np.asarray((self.orientations() - drawn + 180) % 360 - 180)

    def figures(self) -> dict[str, Any]:
        """Both orientations and widths of each detector, and medians over all."""
        errors, widths = self.errors(), self.widths
        drawn = np.array([d.width for d in self.detectors])
        return {
            "detectors": [
                {
                    d.kind: d.index,
                    "orientation": round(d.orientation, 1),
                    "off": round(float(error), 1),
                    "width": round(d.width, 1),
                    "width_on_photographs": round(float(width), 1),
                    "patches": n,
                }
                for d, error, width, n in zip(
                    self.detectors, errors, widths, self.patches, strict=True
                )
            ],
            "median_off": round(float(np.median(np.abs(errors))), 2),
            "worst_off": round(float(np.abs(errors).max()), 2),
            "median_width": round(float(np.median(drawn)), 1),
            "median_width_on_photographs": round(float(np.median(widths)), 1),
        }

    def records(self) -> list[dict[str, Any]]:
        """One record a detector, for detectors.csv; angles in degrees."""
        return [
            {
                "kind": d.kind,
                "index": d.index,
                "orientation": f"{d.orientation:.6g}",
                "orientation_on_photographs": f"{found:.6g}",
                "off": f"{error:.6g}",
                "width": f"{d.width:.6g}",
                "width_on_photographs": f"{width:.6g}",
                "patches": n,
            }
            for d, found, error, width, n in zip(
                self.detectors,
                self.orientations(),
                self.errors(),
                self.widths,
                self.patches,
                strict=True,
            )
        ]


def combine(
    detectors: Sequence[Detector],
    curves: Sequence[Float[np.ndarray, "a m"]],
    patches: Sequence[int],
) -> Joint:
    """Sort detectors by orientation and divide responses by each detector's own maximum.

    Left out are detectors without a patch, which are never active in the store, and those that
    none of their turned patches excites, because patches fade towards their rim. Raises
    ConfigError where fewer than two remain.
    """
    order = np.argsort([d.orientation for d in detectors], kind="stable").tolist()
    kept = [i for i in order if patches[i] and curves[i][:, i].max() > 0]
    if len(kept) < 2:
        raise ConfigError(
            f"joint tuning needs two detectors that respond to their own turned patches; got "
            f"{len(kept)} of {len(curves)}. Name other --latents, or harvest more inputs."
        )
    stacked = np.stack([curves[i][:, kept] for i in kept])
    own_M = np.array([stacked[m, :, m].max() for m in range(len(kept))])
    return Joint(
        [detectors[i] for i in kept],
        np.maximum(stacked, 0) / np.maximum(own_M, 1e-30),
        [patches[i] for i in kept],
    )
