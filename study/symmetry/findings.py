"""What a study of symmetry has found, in the form that the page and the tables are made from."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from ..curves.findings import Patch
from ..measures.curve_scores import Gap, angle_between, coverage
from ..measures.feature_visualisation import Visualised
from ..measures.latent_families import Family
from ..measures.shape_stimuli import KINDS, ShapeTuning
from .analysis import Reading
from .planted import PlantedScores, planted_scores

PROOF = ("C2", "D1", "D2")
"""The kinds of subgroups whose shares are listed and shown against chance."""


@final
@dataclass(frozen=True)
class SymmetryFindings:
    """All that the page shows. Rows are those of the reading: latents that fire."""

    title: str
    subject: str
    site: str
    reading: Reading
    controls: Sequence[Reading]
    tuning: ShapeTuning | None
    """Answers of the rows to drawn shapes; None where the subject could not be asked."""
    margin: float
    shown: int
    patches: Mapping[int, Sequence[Patch]]
    """By row of a family's head."""
    notes: Sequence[str]
    command: str
    made: Mapping[str, object]
    made_images: Mapping[int, Sequence[Visualised]] = field(default_factory=dict)
    """By row of a family's head: feature visualisations of its blocks in some poses."""
    umap: bool = False
    """Whether the map is drawn by UMAP, too."""

    @cached_property
    def names(self) -> list[str]:
        """What each row answers to most of what was drawn, where one reflection fixes it."""
        if self.tuning is None:
            return ["" for _ in self.reading.classes]
        drawn = self.tuning.names(self.margin)
        return [
            name if kind == "one reflection" else ""
            for name, kind in zip(drawn, self.reading.classes, strict=True)
        ]

    @cached_property
    def orientations(self) -> list[float | None]:
        """In degrees clockwise from +x: of a latent that one reflection fixes the direction that
        its answers to shapes choose of the two that its axis has, of others its axis."""
        found: list[float | None] = []
        for row, axis in enumerate(self.reading.axes):
            seen = self.seen(row)
            if axis is None or seen is None:
                found.append(axis)
            else:
                found.append(axis if angle_between(axis, seen) <= 90 else axis + 180)
        return found

    def seen(self, row: int) -> float | None:
        """The direction of the shape that a row answers to most; None where it is silent."""
        name = self.names[row]
        return self.tuning.direction(row, name) if self.tuning and name in KINDS else None

    def axis_errors(self) -> list[float]:
        """Degrees from the axis of the blocks to the direction of the answers, modulo 180, of
        every latent that one reflection fixes: two measures that share no step."""
        errors = []
        for row, axis in enumerate(self.reading.axes):
            seen = self.seen(row)
            if axis is not None and seen is not None:
                apart = angle_between(axis, seen)
                errors.append(min(apart, 180 - apart))
        return errors

    @cached_property
    def families(self) -> list[Family]:
        """With the heads' directions as `orientations` has them."""
        return [
            replace(family, angle=self.orientations[family.head] or 0.0)
            for family in self.reading.families
        ]

    def rows_named(self, name: str) -> list[int]:
        """Rows of a name, in order of orientation."""
        rows = [row for row, other in enumerate(self.names) if other == name]
        return sorted(rows, key=lambda row: self.orientations[row] or 0.0)

    @property
    def curve_gap(self) -> Gap:
        """The widest stretch of orientations without a curve latent, by the blocks' axes."""
        return coverage([self.orientations[row] or 0.0 for row in self.rows_named("curve")])

    @cached_property
    def planted(self) -> PlantedScores | None:
        """How all of it scores against what was planted; None where nothing was."""
        return planted_scores(
            self.subject, self.site, self.reading, self.orientations, self.controls
        )

    def name_counts(self) -> dict[str, int]:
        """How many latents that one reflection fixes are of each name."""
        return {name: self.names.count(name) for name in (*KINDS, "silent") if name in self.names}

    def latent(self, row: int) -> dict[str, Any]:
        """All that is known of one latent, by name: a line of the tables, and what a score
        against known truths goes by."""
        reading = self.reading
        stabiliser = reading.stabilisers[row]
        number = reading.family_of[row]
        family = self.families[number]
        place = family.members.index(row)
        kinds = [kind for kind in PROOF if kind in reading.symmetry.kinds]
        irreps = {name: float(power[row]) for name, power in reading.symmetry.irreps.items()}
        orientation, rank = self.orientations[row], reading.rank(row)
        return {
            "latent": int(reading.latents[row]),
            "class": reading.classes[row],
            "name": self.names[row],
            "stabiliser": stabiliser.kind if stabiliser else reading.group.name,
            "axis_class": stabiliser.axis_class if stabiliser else "",
            "orientation": None if orientation is None else round(orientation, 2),
            "period": round(360 / stabiliser.turns, 2) if stabiliser else 0.0,
            "family": number,
            "pose": family.poses[place],
            "likeness": family.likeness[place],
            "share": round(reading.share(row), 4),
            "null": None if rank is None else round(rank, 4),
            **{f"share_{k}": round(float(reading.symmetry.of_kind(k)[0][row]), 4) for k in kinds},
            "variation": round(float(reading.symmetry.variation[row]), 4),
            "frequency": float(f"{reading.frequency[row]:.4g}"),
            **{f"power_{name}": round(power, 4) for name, power in irreps.items()},
        }

    @cached_property
    def listing(self) -> list[dict[str, Any]]:
        """Every latent, in order."""
        return [self.latent(row) for row in range(len(self.reading.latents))]

    def family_listing(self) -> list[dict[str, Any]]:
        """Every family, the largest first."""
        lines = []
        for number, family in enumerate(self.families):
            gap = family.gap
            numbers = self.reading.latents[list(family.members)]
            lines.append(
                {
                    "family": number,
                    "size": len(family.members),
                    "head": int(self.reading.latents[family.head]),
                    "class": self.reading.classes[family.head],
                    "name": self.names[family.head],
                    "period": round(family.period, 2),
                    "widest_gap": round(gap.degrees, 2) if gap else None,
                    "turned": family.hands[0],
                    "mirrored": family.hands[1],
                    "mean_likeness": round(float(np.mean(family.likeness)), 4),
                    "frequency": float(f"{self.reading.frequency[list(family.members)].sum():.4g}"),
                    "members": " ".join(map(str, numbers)),
                    "directions": " ".join(f"{d:.1f}" for d in family.directions),
                }
            )
        return lines

    def figures(self) -> dict[str, Any]:
        """The result of the command."""
        reading, errors = self.reading, self.axis_errors()
        several = [family for family in self.families if len(family.members) > 1]
        return {
            "run": reading.run,
            "group": reading.group.name,
            "tied": reading.tied,
            "latents_total": reading.total,
            "latents_alive": len(reading.latents),
            "classes": reading.counts(),
            "names": self.name_counts(),
            "thresholds": {kind: round(v, 4) for kind, v in reading.thresholds.items()},
            "families": len(self.families),
            "families_of_several": len(several),
            "largest_family": len(self.families[0].members) if self.families else 0,
            "alike": round(reading.alike, 4),
            # copies of a tied family point everywhere, so there is no gap to speak of
            "curve_gap": None if reading.tied else round(self.curve_gap.degrees, 2),
            "axis_error_median": round(float(np.median(errors)), 2) if errors else None,
            "controls": {c.run: c.counts() for c in self.controls},
            "trained": {c.run: dict(c.trained) for c in (reading, *self.controls) if c.trained},
            **({"planted": self.planted.summary()} if self.planted else {}),
            "latents": self.listing,
        }


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Mappings of the same names, a line each."""
    with path.open("w", newline="") as file:
        if rows:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
