"""A family of curve detectors: all units of a site, or all latents of a dictionary, measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.receptive import ReceptiveField, receptive_field
from tendril.models.subjects.subject import Subject

from ..core.report import write_csv
from .curve_scores import (
    CurveScores,
    CurveThresholds,
    Gap,
    angle_between,
    coverage,
    radial_tuning,
    score_curves,
    widest_gaps,
)
from .curve_search import CurveSearch
from .curve_stimuli import CurveGrid
from .image_examples import Patch
from .rival_stimuli import RIVALS, RivalResponses
from .tuning import latent_rivals, latent_tuning, unit_rivals, unit_tuning

NEAR = {"resultant": 0.15, "echo": 0.15, "strength": 0.10, "rival": 0.15}
"""How far a near miss may fall short of one threshold."""
REFERENCE_FIELD = 91
"""The receptive field, in pixels, that the default radii suit."""
WRAPS = 359.95
"""Orientations from here on count as 0 degrees, so that they sort and print there."""


@dataclass(frozen=True)
class CurveFamily:
    """The units of a site, or the latents of a dictionary, and which of them detect curves."""

    kind: Literal["unit", "latent"]
    responses: Float[np.ndarray, "a q e d"]
    orientations: Float[np.ndarray, " a"]
    radii: Float[np.ndarray, " q"]
    styles: Sequence[str]
    thresholds: CurveThresholds
    rivals: RivalResponses | None = None
    """Responses to other shapes; None where none were shown."""
    patches: Mapping[int, Sequence[Patch]] = field(default_factory=dict)

    @cached_property
    def radial(self) -> Float[np.ndarray, "a d"]:
        """The radial tuning curve of each, [A, D]."""
        return radial_tuning(self.responses)

    @cached_property
    def scores(self) -> CurveScores:
        """The measures of each of them."""
        rivals = None if self.rivals is None else self.best_rivals
        return score_curves(self.responses, self.orientations, self.radii, self.styles, rivals)

    @cached_property
    def best_rivals(self) -> Float[np.ndarray, "k d"]:
        """The greatest response to each kind of RIVALS; zeros where none were shown."""
        if self.rivals is None:
            return np.zeros((len(RIVALS), self.responses.shape[-1]))
        return self.rivals.best()

    def rival(self, index: int) -> str:
        """The kind of rival to which one responds most; empty if to none."""
        best_K = self.best_rivals[:, index]
        return RIVALS[int(best_K.argmax())] if best_K.max() > 0 else ""

    @cached_property
    def members(self) -> list[int]:
        """The curve detectors, in order of orientation."""
        return sorted(self.thresholds.curves(self.scores), key=self.orientation)

    @property
    def gap(self) -> Gap:
        """The largest stretch of orientations without a curve detector."""
        return coverage([self.orientation(member) for member in self.members])

    @property
    def gaps(self) -> list[Gap]:
        """The largest gap, and those that are as large to the degree."""
        return widest_gaps([self.orientation(member) for member in self.members])

    def orientation(self, index: int) -> float:
        """Orientation of one of them, in degrees from 0 to below 360; from 359.95 on it is 0."""
        angle = float(self.scores.orientation[index])
        return 0.0 if angle >= WRAPS else angle

    def nearest(self, orientation: float) -> tuple[int, float] | None:
        """The curve detector nearest to an orientation, and its distance in degrees."""
        errors = ((angle_between(self.orientation(m), orientation), m) for m in self.members)
        error, member = min(errors, default=(0.0, None))
        return None if member is None else (member, error)

    def near_misses(self) -> list[tuple[int, str]]:
        """Those that fail just one threshold, and narrowly, with the reason; best first."""
        scores, passes = self.scores, self.thresholds.passes(self.scores)
        relative = scores.max / max(float(scores.max.max(initial=0.0)), 1e-30)
        limits = self.thresholds
        short = {
            "resultant": (limits.resultant - scores.resultant, scores.resultant, "<"),
            "echo": (scores.echo - limits.echo, scores.echo, ">"),
            "strength": (limits.strength - relative, relative, "<"),
            "rival": (scores.rival - limits.rival, scores.rival, ">"),
        }
        found = []
        for name, (lack, value, sign) in short.items():
            others = [passes[other] for other in passes if other != name]
            near = np.all([*others, ~passes[name], lack <= NEAR[name], scores.max > 0], axis=0)
            for index in np.flatnonzero(near):
                kind = f" ({self.rival(int(index))})" if name == "rival" else ""
                reason = f"{name}{kind} {value[index]:.2f} {sign} {getattr(limits, name):g}"
                found.append((float(lack[index] / NEAR[name]), int(index), reason))
        return [(index, reason) for _, index, reason in sorted(found)]

    def listing(self) -> list[dict[str, float | int | str]]:
        """The curve detectors for the result of the command."""
        return [
            {
                self.kind: member,
                "orientation": round(self.orientation(member), 2),
                "resultant": round(float(self.scores.resultant[member]), 4),
                "echo": round(float(self.scores.echo[member]), 4),
                "max": round(float(self.scores.max[member]), 4),
                "rival": self.rival(member),
                "rival_ratio": round(float(self.scores.rival[member]), 4),
            }
            for member in self.members
        ]

    def write_csv(self, path: Path) -> None:
        """Write every measure of every unit or latent, one line each."""
        names = [field.name for field in fields(CurveScores)]
        chosen, scores = set(self.members), self.scores
        columns = ["rival_ratio" if name == "rival" else name for name in names]
        rows = (
            [
                *(i, int(i in chosen)),
                *(f"{getattr(scores, name)[i]:.6g}" for name in names),
                self.rival(i),
            ]
            for i in range(len(scores.max))
        )
        write_csv(path, [self.kind, "curve", *columns, "rival"], rows)


def unit_family(
    subject: Subject, site: str, search: CurveSearch, device: torch.device
) -> CurveFamily:
    """Measure every unit of a site on drawn curves."""
    field = receptive_field(subject, site)
    grid = curve_grid(search, subject, field)
    return CurveFamily(
        "unit",
        unit_tuning(subject, site, field, grid, device),
        np.array(grid.orientations),
        np.array(grid.radii),
        grid.styles,
        search.thresholds,
        unit_rivals(subject, site, field, grid, device),
    )


def latent_family(units: CurveFamily, dictionary: SAE, device: torch.device) -> CurveFamily:
    """Measure every latent of a dictionary on the same curves as the units of its site."""
    responses = latent_tuning(units.responses, dictionary.encode, device)
    rivals = units.rivals and latent_rivals(units.rivals, dictionary.encode, device)
    return replace(units, kind="latent", responses=responses, rivals=rivals, patches={})


def curve_grid(search: CurveSearch, subject: Subject, field: ReceptiveField) -> CurveGrid:
    """The curves to show. Default radii are doubled or halved to suit the receptive field, so
    that sites of similar fields see the same curves and can be compared."""
    grid = CurveGrid(orientations=search.orientations, line_width=search.line_width)
    if search.radii:
        return replace(grid, radii=tuple(sorted(search.radii)))
    octaves = round(math.log2(min(max(field.size), subject.input_size) / REFERENCE_FIELD))
    return replace(grid, radii=tuple(round(radius * 2.0**octaves, 2) for radius in grid.radii))
