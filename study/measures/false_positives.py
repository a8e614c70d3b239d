"""How often a symmetry is found where there should be none: measured, with its interval.

Two kinds of blocks are classified as latents are. Raw anchors are orbits of inputs that the null
distributions have not seen; some of them are symmetric, so their rates are upper bounds. Chiral
blocks are made of blocks by turning each angular frequency by a random angle: they keep the angular
spectrum, and no reflection fixes them. Their half turns stay, so a rate of `half turn` or `many
turns` among them is no false positive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import beta

from .axis_alignment import alignment_p, can_test
from .stabilisers import Symmetry, class_counts, class_of, estimate_stabilisers
from .subgroups import Subgroup

COVERAGE = 0.95


@final
@dataclass(frozen=True)
class Rule:
    """What counts as a symmetry: a limit for each kind of subgroup, and the level of the P values
    of axes."""

    limits: Mapping[str, float]
    level: float
    flat: float

    def stabilisers(
        self, symmetry: Symmetry
    ) -> tuple[list[Subgroup | None], dict[str, Float[np.ndarray, " f"]]]:
        """The stabiliser of each latent, and the P values of axes by kind of subgroup."""
        p = axis_p(symmetry, self.limits)
        aligned: dict[str, Bool[np.ndarray, " f"]] = {k: v <= self.level for k, v in p.items()}
        return estimate_stabilisers(symmetry, self.limits, self.flat, aligned), p


def axis_p(symmetry: Symmetry, limits: Mapping[str, float]) -> dict[str, Float[np.ndarray, " f"]]:
    """P values of the axes of D_d by kind, for the latents whose fraction reaches the limit; 1 for
    the others. Kinds that the null says nothing about are left out."""
    found = {}
    for kind in (kind for kind in symmetry.kinds if kind[0] == "D"):
        turns = int(kind[1:])
        if can_test(symmetry.group, turns):
            p_F = np.ones(len(symmetry))
            rows = np.flatnonzero(symmetry.of_kind(kind)[0] >= limits[kind])
            p_F[rows] = alignment_p(symmetry.correlation[rows], symmetry.group, turns)
            found[kind] = p_F
    return found


@final
@dataclass(frozen=True)
class FalsePositives:
    """Classes of `total` blocks of a source that should have none."""

    source: str
    total: int
    counts: Mapping[str, int]

    def rate(self, name: str) -> tuple[float, float, float]:
        """The fraction of a class, and its 95 % interval (Clopper and Pearson, 1934)."""
        many = self.counts.get(name, 0)
        return (many / self.total if self.total else 0.0, *interval(many, self.total))

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        rates = {name: [round(v, 4) for v in self.rate(name)] for name in self.counts}
        return {"total": self.total, "counts": dict(self.counts), "rates": rates}


def false_positives(source: str, symmetry: Symmetry, rule: Rule) -> FalsePositives:
    """Classify blocks that should have no symmetry; those that do not vary are left out."""
    stabilisers, _ = rule.stabilisers(symmetry)
    varies = symmetry.variation > rule.flat
    found: Sequence[str] = [
        class_of(h) for h, there in zip(stabilisers, varies, strict=True) if there
    ]
    return FalsePositives(source, len(found), class_counts(found))


def interval(many: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a binomial fraction."""
    tail = (1 - COVERAGE) / 2
    low = float(beta.ppf(tail, many, total - many + 1)) if many else 0.0
    high = float(beta.ppf(1 - tail, many + 1, total - many)) if many < total else 1.0
    return low, high
