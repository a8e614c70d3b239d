"""What the study of curve detectors finds, in the form that its page and tables are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import angle_between
from ..measures.gap_chance import Chance, envelope_chance, widest_chance

RECOVERED = 6.0
"""Degrees within which a planted orientation counts as recovered."""


@dataclass(frozen=True)
class Truth:
    """A planted curve detector, and the detectors found nearest to it."""

    unit: int | None
    """The unit that was planted; None where the feature is a direction of several units."""
    orientation: float
    found: Mapping[str, tuple[int, float] | None]
    """By kind of family: the nearest curve detector and its distance in degrees."""
    aligned: tuple[int, float] | None = None
    """The latent whose decoder row has the largest cosine with the planted direction, and it."""
    name: str = ""
    """What a feature is called that is no unit."""

    @property
    def label(self) -> str:
        """The unit by its number, or the feature by its name."""
        return self.name if self.unit is None else f"unit {self.unit}"

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

    subject: str
    site: str
    units: CurveFamily
    latents: CurveFamily | None
    branches: Mapping[str, range]
    """The parts of the site by name, with their channels; empty if it has one part only."""
    receptive_field: int
    run: str
    metrics: Mapping[str, Sequence[float]]
    trained: Mapping[str, float]
    """Figures that the run ended with, by name."""
    examples_note: str
    truths: Sequence[Truth]

    @property
    def families(self) -> list[CurveFamily]:
        """Units first, then the latents where there are any."""
        return [self.units] if self.latents is None else [self.units, self.latents]

    @cached_property
    def chances(self) -> dict[str, tuple[Chance, Chance] | None]:
        """By kind of family, compared with chance: its widest gap, and the lowest point of its
        envelope; None for an empty family."""
        found: dict[str, tuple[Chance, Chance] | None] = {}
        for family in self.families:
            angles = [family.orientation(member) for member in family.members]
            widest = widest_chance(angles, large=family.kind == "unit")
            low = envelope_chance(family.radial[:, family.members])
            found[family.kind] = (widest, low) if widest and low else None
        return found

    def chance_figures(self) -> dict[str, object]:
        """The chance levels as JSON values."""
        names = ("gap", "envelope")
        return {
            f"chance_{kind}s": chances
            and {name: one.figures() for name, one in zip(names, chances, strict=True)}
            for kind, chances in self.chances.items()
        }

    def branch_counts(self) -> dict[str, int]:
        """How many curve units each part of the site holds."""
        return {
            name: sum(unit in channels for unit in self.units.members)
            for name, channels in self.branches.items()
        }

    def planted_result(self) -> dict[str, object]:
        """How many planted orientations are recovered; empty if none were planted."""
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
        """For how many planted units the most aligned latent lies within 6 degrees, and the median
        cosine. Unlike the nearest latent, this does not become likely by chance with many
        latents."""
        pairs = [(t.orientation, t.aligned) for t in self.truths if t.aligned]
        if self.latents is None or not pairs:
            return {}
        errors = [angle_between(self.latents.orientation(a[0]), angle) for angle, a in pairs]
        return {
            "aligned_latents": sum(error <= RECOVERED for error in errors),
            "aligned_cosine": round(float(np.median([a[1] for _, a in pairs])), 4),
        }

    def recovered_by_chance(self) -> float:
        """Expected number of planted orientations that as many detectors of random orientation
        recover: n detectors miss one with probability (1 - 12/360)^n."""
        miss = (1 - 2 * RECOVERED / 360) ** len(self.families[-1].members)
        return len(self.truths) * (1 - miss)

    def figures(self) -> dict[str, object]:
        """Curve detectors, gaps, and the comparison with what was planted, if anything."""
        latents = self.latents
        return {
            "curve_units": self.units.listing(),
            "curve_latents": latents.listing() if latents else [],
            "gap_units": round(self.units.gap.degrees, 2),
            "gap_latents": round(latents.gap.degrees, 2) if latents else None,
            **({"branches": self.branch_counts()} if self.branches else {}),
            **self.chance_figures(),
            **self.planted_result(),
        }
