"""What the study of symmetry finds, in the form that its page and tables are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float

from ..measures.curve_scores import Gap, angle_between, coverage
from ..measures.feature_visualisation import Visualised
from ..measures.image_examples import Patch
from ..measures.latent_families import LatentFamily, wrapped
from ..measures.planted_scores import PlantedScores, planted_scores
from ..measures.shape_stimuli import KINDS, ShapeTuning
from ..measures.symmetry_analysis import SymmetryAnalysis
from .race import Race

SHOWN_KINDS = ("C2", "D1", "D2")
"""The kinds of subgroups whose fractions are listed, and shown against chance."""


@final
@dataclass(frozen=True)
class SymmetryFindings:
    """All that the page shows. Rows are those of the analysis: latents that fire."""

    subject: str
    site: str
    analysis: SymmetryAnalysis
    controls: Sequence[SymmetryAnalysis]
    tuning: ShapeTuning | None
    """Responses of the rows to drawn shapes; None where the subject could not be shown any."""
    margin: float
    shown: int
    """Families on the page, at most."""
    maps: Mapping[str, Float[np.ndarray, "f 2"]] = field(default_factory=dict)
    """By method: the rows as points on a plane."""
    patches: Mapping[int, Sequence[Patch]] = field(default_factory=dict)
    """By row of a family's head: its dataset examples, pose-normalised."""
    visualised: Mapping[int, Sequence[Visualised]] = field(default_factory=dict)
    """By row of a family's head: feature visualisations of its blocks in some poses."""
    race: Race | None = None
    """The quality of the families of the run and of the controls."""
    notes: Sequence[str] = ()
    """Sentences about what could not be computed."""

    @cached_property
    def names(self) -> list[str]:
        """The kind of shape to which each row responds most; empty unless exactly one reflection
        fixes the row."""
        if self.tuning is None:
            return ["" for _ in self.analysis.classes]
        return [
            name if kind == "one reflection" else ""
            for name, kind in zip(
                self.tuning.names(self.margin), self.analysis.classes, strict=True
            )
        ]

    @cached_property
    def orientations(self) -> list[float | None]:
        """Degrees clockwise from +x: the direction of a row that one reflection fixes, as its
        responses choose it from the two of its axis; the axis of any other row."""
        found: list[float | None] = []
        for row, axis in enumerate(self.axes):
            seen = self.seen(row)
            if axis is None or seen is None:
                found.append(axis)
            else:
                found.append(axis if angle_between(axis, seen) <= 90 else axis + 180)
        return found

    @cached_property
    def axes(self) -> list[float | None]:
        """The first axis of each row, from 0 to below its period."""
        pairs = zip(self.analysis.axes, self.analysis.stabilisers, strict=True)
        return [
            None if axis is None or h is None else wrapped(axis, 180 / h.turns) for axis, h in pairs
        ]

    def seen(self, row: int) -> float | None:
        """The direction of the shape to which a row responds most; None without a response."""
        name = self.names[row]
        return self.tuning.direction(row, name) if self.tuning and name in KINDS else None

    def axis_errors(self) -> list[float]:
        """Degrees, modulo 180, from the axis of the blocks to the direction of the responses, for
        every row that one reflection fixes: two measures that have no step in common."""
        errors = []
        for row, axis in enumerate(self.analysis.axes):
            seen = self.seen(row)
            if axis is not None and seen is not None:
                apart = angle_between(axis, seen)
                errors.append(min(apart, 180 - apart))
        return errors

    @cached_property
    def families(self) -> list[LatentFamily]:
        """The families, with the heads' directions from `orientations`."""
        return [
            replace(family, angle=self.orientations[family.head] or 0.0)
            for family in self.analysis.families
        ]

    @property
    def heads(self) -> list[int]:
        """Rows of the heads of the families shown."""
        return [family.head for family in self.families[: self.shown]]

    def rows_named(self, name: str) -> list[int]:
        """Rows with a name, in order of orientation."""
        rows = [row for row, other in enumerate(self.names) if other == name]
        return sorted(rows, key=lambda row: self.orientations[row] or 0.0)

    @property
    def curve_gap(self) -> Gap:
        """The widest stretch of orientations without a curve latent, from the blocks' axes."""
        return coverage([self.orientations[row] or 0.0 for row in self.rows_named("curve")])

    def nearest_curves(self, count: int) -> list[tuple[int, float]]:
        """The rows with the largest responses to curves relative to other shapes, with that ratio;
        rows that one reflection fixes come first."""
        if self.tuning is None:
            return []
        classes = self.analysis.classes
        ratios = [(row, self.tuning.curve_ratio(row)) for row in range(len(classes))]
        responding = [(row, ratio) for row, ratio in ratios if ratio > 0]
        responding.sort(key=lambda pair: (classes[pair[0]] != "one reflection", -pair[1]))
        return responding[:count]

    @cached_property
    def planted(self) -> PlantedScores | None:
        """Scores against the planted features; None where nothing was planted."""
        return planted_scores(
            self.subject, self.site, self.analysis, self.orientations, self.controls
        )

    def name_counts(self) -> dict[str, int]:
        """Number of rows of each name, among those that one reflection fixes."""
        return {name: self.names.count(name) for name in (*KINDS, "silent") if name in self.names}

    def latent(self, row: int) -> dict[str, Any]:
        """Everything that is known about one latent, by name: one line of the tables."""
        analysis, symmetry = self.analysis, self.analysis.symmetry
        stabiliser = analysis.stabilisers[row]
        number = analysis.family_of[row]
        family = self.families[number]
        place = family.members.index(row)
        kinds = [kind for kind in SHOWN_KINDS if kind in symmetry.kinds]
        irreps = {name: float(power[row]) for name, power in symmetry.irreps.items()}
        orientation, rank = self.orientations[row], analysis.rank(row)
        return {
            "latent": int(analysis.latents[row]),
            "class": analysis.classes[row],
            "name": self.names[row],
            "stabiliser": stabiliser.kind if stabiliser else analysis.group.name,
            "axis_class": stabiliser.axis_class if stabiliser else "",
            "orientation": None if orientation is None else round(orientation, 2),
            "period": round(360 / stabiliser.turns, 2) if stabiliser else 0.0,
            "family": number,
            "pose": family.poses[place],
            "likeness": family.likeness[place],
            "fraction": round(analysis.fraction(row), 4),
            "null": None if rank is None else round(rank, 4),
            "axis_p": analysis.p_of(row),
            **{f"fraction_{k}": round(float(symmetry.of_kind(k)[0][row]), 4) for k in kinds},
            "variation": round(float(symmetry.variation[row]), 4),
            "frequency": float(f"{analysis.frequency[row]:.4g}"),
            **{f"power_{name}": round(power, 4) for name, power in irreps.items()},
        }

    @cached_property
    def listing(self) -> list[dict[str, Any]]:
        """Every latent, in order."""
        return [self.latent(row) for row in range(len(self.analysis.latents))]

    def family_listing(self) -> list[dict[str, Any]]:
        """Every family, the largest first."""
        analysis, lines = self.analysis, []
        for number, family in enumerate(self.families):
            gap, members = family.gap, list(family.members)
            lines.append(
                {
                    "family": number,
                    "size": len(members),
                    "head": int(analysis.latents[family.head]),
                    "class": analysis.classes[family.head],
                    "name": self.names[family.head],
                    "period": round(family.period, 2),
                    "widest_gap": round(gap.degrees, 2) if gap else None,
                    "turned": family.hands[0],
                    "mirrored": family.hands[1],
                    "mean_likeness": round(float(np.mean(family.likeness)), 4),
                    "frequency": float(f"{analysis.frequency[members].sum():.4g}"),
                    "members": " ".join(map(str, analysis.latents[members])),
                    "directions": " ".join(f"{d:.1f}" for d in family.directions),
                }
            )
        return lines

    def figures(self) -> dict[str, Any]:
        """The findings as JSON values."""
        analysis, errors = self.analysis, self.axis_errors()
        several = [family for family in self.families if len(family.members) > 1]
        return {
            "run": analysis.run,
            "group": analysis.group.name,
            "tied": analysis.tied,
            "latents_total": analysis.total,
            "latents_alive": len(analysis.latents),
            "classes": analysis.counts(),
            "names": self.name_counts(),
            "thresholds": {kind: round(v, 4) for kind, v in analysis.limits.items()},
            "chance": {kind: round(v, 4) for kind, v in analysis.chance.items()},
            "false_positives": {one.source: one.figures() for one in analysis.rates},
            "families": len(self.families),
            "families_of_several": len(several),
            "largest_family": len(self.families[0].members) if self.families else 0,
            "alike": round(analysis.alike, 4),
            # copies of a tied latent point in every direction, so a gap has no meaning
            "curve_gap": None if analysis.tied else round(self.curve_gap.degrees, 2),
            "axis_error_median": round(float(np.median(errors)), 2) if errors else None,
            "controls": {c.run: c.counts() for c in self.controls},
            "trained": {c.run: dict(c.trained) for c in (analysis, *self.controls) if c.trained},
            **({"planted": self.planted.figures()} if self.planted else {}),
            **({"race": self.race.figures()} if self.race else {}),
            "latents": self.listing,
        }
