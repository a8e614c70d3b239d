"""What the study of curve detectors finds, in the form that its page and tables are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import angle_between
from ..measures.gap_chance import Chance, envelope_chance, widest_chance
from .rings import Ring, ring_figures, rings_of
from .truth import RECOVERED, Truth


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
    continuous: bool = False
    """True if the planted curves are reference orientations of continuous families."""

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
            **self.ring_result(),
        }

    @cached_property
    def rings(self) -> list[Ring]:
        """The planted curves of each radius, where they are continuous and there are latents."""
        return rings_of(self.truths, self.latents) if self.continuous and self.latents else []

    def ring_result(self) -> dict[str, object]:
        """For curves of any orientation, how many have a latent along them."""
        return ring_figures(self.rings) if self.rings else {}

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
