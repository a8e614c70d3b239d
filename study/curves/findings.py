"""What a study of curves has found, in the form that the page and the tables are made from."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from ..measures.curve_scores import (
    CurveScores,
    CurveThresholds,
    Gap,
    angle_between,
    coverage,
    radial_tuning,
    score_curves,
)

RECOVERED = 6.0
"""Degrees within which a planted orientation counts as recovered."""
NEAR = {"resultant": 0.15, "echo": 0.15, "strength": 0.10}
"""How far a near miss may fall short of one threshold."""


@dataclass(frozen=True)
class Patch:
    """A piece of an input that excites a unit: the pixels of the receptive field."""

    pixels: UInt8[np.ndarray, "h w 3"]
    value: float
    name: str


@dataclass(frozen=True)
class Family:
    """The units of a site, or the latents of a dictionary, and which of them detect curves."""

    kind: Literal["unit", "latent"]
    responses: Float[np.ndarray, "a q e d"]
    orientations: Float[np.ndarray, " a"]
    radii: Float[np.ndarray, " q"]
    styles: Sequence[str]
    thresholds: CurveThresholds
    patches: Mapping[int, Sequence[Patch]] = field(default_factory=dict)

    @cached_property
    def radial(self) -> Float[np.ndarray, "a d"]:
        """The radial tuning curve of each."""
        return radial_tuning(self.responses)

    @cached_property
    def scores(self) -> CurveScores:
        """The measures of each."""
        return score_curves(self.responses, self.orientations, self.radii, self.styles)

    @cached_property
    def members(self) -> list[int]:
        """The curve detectors, in order of orientation."""
        return self.thresholds.curves(self.scores)

    @property
    def gap(self) -> Gap:
        """The largest stretch of orientations without a curve detector."""
        return coverage([self.orientation(member) for member in self.members])

    def orientation(self, index: int) -> float:
        """Of one of them, in degrees."""
        return float(self.scores.orientation[index])

    def nearest(self, orientation: float) -> tuple[int, float] | None:
        """The curve detector nearest to an orientation, and its distance in degrees."""
        errors = ((angle_between(self.orientation(m), orientation), m) for m in self.members)
        error, member = min(errors, default=(0.0, None))
        return None if member is None else (member, error)

    def near_misses(self) -> list[tuple[int, str]]:
        """Those that fail just one threshold, and narrowly, with the reason; best first."""
        scores, passes = self.scores, self.thresholds.passes(self.scores)
        share = scores.max / max(float(scores.max.max(initial=0.0)), 1e-30)
        limits = self.thresholds
        short = {
            "resultant": (limits.resultant - scores.resultant, scores.resultant, "<"),
            "echo": (scores.echo - limits.echo, scores.echo, ">"),
            "strength": (limits.strength - share, share, "<"),
        }
        found = []
        for name, (lack, value, sign) in short.items():
            others = [passes[other] for other in passes if other != name]
            near = np.all([*others, ~passes[name], lack <= NEAR[name], scores.max > 0], axis=0)
            for index in np.flatnonzero(near):
                reason = f"{name} {value[index]:.2f} {sign} {getattr(limits, name):g}"
                found.append((float(lack[index] / NEAR[name]), int(index), reason))
        return [(index, reason) for _, index, reason in sorted(found)]

    def listing(self) -> list[dict[str, float | int]]:
        """The curve detectors for the result of the command."""
        return [
            {
                self.kind: member,
                "orientation": round(self.orientation(member), 2),
                "resultant": round(float(self.scores.resultant[member]), 4),
                "echo": round(float(self.scores.echo[member]), 4),
                "max": round(float(self.scores.max[member]), 4),
            }
            for member in self.members
        ]

    def write_csv(self, path: Path) -> None:
        """Every measure of every unit or latent, one line each."""
        names = [field.name for field in fields(CurveScores)]
        chosen = set(self.members)
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([self.kind, "curve", *names])
            for index in range(len(self.scores.max)):
                row = self.scores.row(index)
                values = [f"{row[name]:.6g}" for name in names]
                table.writerow([index, int(index in chosen), *values])


@dataclass(frozen=True)
class Truth:
    """A curve detector that was planted by rule, and what the study found nearest to it."""

    unit: int
    orientation: float
    found: Mapping[str, tuple[int, float] | None]
    """By kind of family: the nearest curve detector and its distance in degrees."""
    aligned: tuple[int, float] | None = None
    """The latent whose decoder row points most along the planted unit, and their cosine."""

    def error(self, kind: str) -> float:
        """Degrees to the nearest of that kind; 180 where there is none."""
        nearest = self.found.get(kind)
        return 180.0 if nearest is None else nearest[1]

    def recovered(self, kind: str) -> bool:
        """Whether the nearest of that kind lies within 6 degrees."""
        return self.error(kind) <= RECOVERED


@dataclass(frozen=True)
class Findings:
    """All that the page shows."""

    title: str
    subject: str
    site: str
    units: Family
    latents: Family | None
    branches: Mapping[str, range]
    """The parts of the site by name, with their channels; empty if it has one part only."""
    receptive_field: int
    run: str
    metrics: Mapping[str, Sequence[float]]
    trained: Mapping[str, float]
    """Figures that the run ended with, by name."""
    examples_note: str
    truths: Sequence[Truth]
    command: str
    made: Mapping[str, object]
    """All that determines the findings: digests, grid, thresholds, and how run and store came
    about."""

    @property
    def families(self) -> list[Family]:
        """Units first, then the latents where there are any."""
        return [self.units] if self.latents is None else [self.units, self.latents]

    def branch_counts(self) -> dict[str, int]:
        """How many curve units each part of the site holds."""
        return {
            name: sum(unit in channels for unit in self.units.members)
            for name, channels in self.branches.items()
        }

    def planted_result(self) -> dict[str, object]:
        """The comparison with what was planted, for the result; empty if nothing was."""
        if not self.truths:
            return {}
        judged = self.families[-1].kind
        return {
            "planted": len(self.truths),
            "recovered_units": sum(truth.recovered("unit") for truth in self.truths),
            "recovered_latents": sum(truth.recovered("latent") for truth in self.truths),
            "worst_error_degrees": round(max(t.error(judged) for t in self.truths), 2),
            "recovered_by_chance": round(self.recovered_by_chance(), 1),
            **self.aligned_result(),
        }

    def aligned_result(self) -> dict[str, object]:
        """How many planted units have a most aligned latent within 6 degrees, and the median
        cosine: unlike the nearest latent, nothing that many latents make likely by chance."""
        pairs = [(t.orientation, t.aligned) for t in self.truths if t.aligned]
        if self.latents is None or not pairs:
            return {}
        errors = [angle_between(self.latents.orientation(a[0]), angle) for angle, a in pairs]
        return {
            "aligned_latents": sum(error <= RECOVERED for error in errors),
            "aligned_cosine": round(float(np.median([a[1] for _, a in pairs])), 4),
        }

    def recovered_by_chance(self) -> float:
        """How many planted orientations as many curve detectors of random orientation would
        recover: n of them leave one unrecovered with probability (1 - 12/360)^n."""
        miss = (1 - 2 * RECOVERED / 360) ** len(self.families[-1].members)
        return len(self.truths) * (1 - miss)

    def figures(self) -> dict[str, object]:
        """The result of the command: curve detectors, gaps, and what was planted, if anything."""
        latents = self.latents
        return {
            "curve_units": self.units.listing(),
            "curve_latents": latents.listing() if latents else [],
            "gap_units": round(self.units.gap.degrees, 2),
            "gap_latents": round(latents.gap.degrees, 2) if latents else None,
            **({"branches": self.branch_counts()} if self.branches else {}),
            **self.planted_result(),
        }
