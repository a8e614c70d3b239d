"""What a study of missing curve detectors has found: of runs, of sites, in figures."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from tendril.models.dictionaries.sae import SAE

from ..curves.findings import Family, Patch
from ..measures.circle import Circle
from ..measures.curve_scores import Gap, gaps
from .decompose import Piece

WIDE = 30.0
BASELINES = ("pca", "ica", "random", "neurons")


@dataclass(frozen=True)
class Trained:
    """One run of a site: its curve latents, and how it was trained."""

    name: str
    objective: str
    seed: int
    held_out: float
    """The share of the inputs that it was not trained on."""
    fvu: float
    dictionary: SAE
    family: Family
    circle: Circle | None

    @property
    def control(self) -> bool:
        """Whether it is a baseline, which nobody expects to find anything."""
        return self.objective in BASELINES

    @property
    def orientations(self) -> list[float]:
        """Those of the curve latents."""
        return [self.family.orientation(m) for m in self.family.members]

    @property
    def rows(self) -> Float[np.ndarray, "s d"]:
        """The decoder rows of the curve latents."""
        chosen: np.ndarray = self.dictionary.W_dec.detach().float().cpu().numpy()
        return chosen[self.family.members]


@dataclass(frozen=True)
class TakenApart:
    """A unit and the latents of one run that write it."""

    unit: int
    peaks: Sequence[float]
    run: str
    pieces: Sequence[Piece]
    all_latents: float
    """The share of the unit's held-out variance that the whole dictionary explains."""
    control: Sequence[float]
    """What as many latents of a random dictionary explain; empty where there is none."""
    patches: Sequence[Sequence[Patch]]
    """Of the unit, then of each piece."""


@dataclass(frozen=True)
class Site:
    """A site of a subject: its units, the runs trained on it, and what they show together."""

    name: str
    subject: str
    units: Family
    runs: Sequence[Trained]
    apart: Sequence[TakenApart]
    umap: Float[np.ndarray, "s 3"] | None

    @cached_property
    def trained(self) -> list[Trained]:
        """The runs that are no controls."""
        return [run for run in self.runs if not run.control]

    @cached_property
    def gaps(self) -> list[Gap]:
        """The wide gaps of the units."""
        found = gaps([self.units.orientation(m) for m in self.units.members])
        return [gap for gap in found if gap.degrees >= WIDE]

    @cached_property
    def pooled(self) -> tuple[Float[np.ndarray, "s d"], list[float]]:
        """Decoder rows and orientations of the curve latents of all trained runs."""
        angles = [angle for run in self.trained for angle in run.orientations]
        rows = [run.rows for run in self.trained]
        width = self.units.responses.shape[-1]
        return (np.concatenate(rows) if rows else np.zeros((0, width))), angles

    @cached_property
    def circle(self) -> Circle | None:
        """Of the first trained run: seeds find the same rows again, and to deal out orientations
        among copies would make chance look too small."""
        return self.trained[0].circle if self.trained else None


def left_of(gap: Gap, orientations: Sequence[float]) -> float:
    """The widest stretch of a gap without a curve detector once those orientations are added."""
    inside = [(o - gap.start) % 360 for o in orientations]
    edges = sorted([0.0, gap.degrees, *(o for o in inside if 0 < o < gap.degrees)])
    return max(b - a for a, b in itertools.pairwise(edges))


def chance_gap(count: int) -> float:
    """The widest gap that `count` directions drawn at random leave, on average: 360 H_n / n."""
    return 360.0 * sum(1 / i for i in range(1, count + 1)) / count if count else 360.0


def site_figures(site: Site) -> dict[str, Any]:
    """The figures of a site, for the result of the command."""
    trained = [round(run.family.gap.degrees, 1) for run in site.trained]
    return {
        "subject": site.subject,
        "site": site.name,
        "curve_units": len(site.units.members),
        "gap_units": round(site.units.gap.degrees, 1),
        "gap_latents": trained,
        "gap_latents_mean": round(float(np.mean(trained)), 1) if trained else None,
        "runs": [
            {
                "run": run.name,
                "objective": run.objective,
                "seed": run.seed,
                "fvu": round(run.fvu, 4),
                "curve_latents": len(run.family.members),
                "gap": round(run.family.gap.degrees, 1),
                "gap_by_chance": round(chance_gap(len(run.family.members)), 1),
                "left": [round(left_of(gap, run.orientations), 1) for gap in site.gaps],
                "circle": _rounded(run.circle),
            }
            for run in site.runs
        ],
        "gaps": [{"from": round(g.start, 1), "degrees": round(g.degrees, 1)} for g in site.gaps],
        "circle": _rounded(site.circle),
        "apart": [
            {
                "unit": one.unit,
                "peaks": list(one.peaks),
                "latents": [piece.latent for piece in one.pieces],
                "orientations": [
                    answered(site.trained[0].family, piece.latent) for piece in one.pieces
                ],
                "explained": [round(piece.explained, 3) for piece in one.pieces],
                "all_latents": round(one.all_latents, 3),
                "random": [round(share, 3) for share in one.control],
            }
            for one in site.apart
        ],
    }


def answered(family: Family, latent: int) -> float | None:
    """The orientation that a latent prefers; None of one that no drawn curve turns on."""
    return round(family.orientation(latent), 1) if family.scores.max[latent] > 0 else None


def _rounded(circle: Circle | None) -> dict[str, Any] | None:
    if circle is None:
        return None
    told = asdict(circle)
    return {
        k: [round(x, 3) for x in v] if isinstance(v, tuple) else round(v, 3)
        for k, v in told.items()
    }
