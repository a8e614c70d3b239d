"""Curve units of a site and curve latents of the runs trained there, with their gaps."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float

from tendril.models.dictionaries.sae import SAE

from ..measures.circle import Circle
from ..measures.curve_family import CurveFamily
from ..measures.curve_scores import Gap, gaps
from ..measures.gap_chance import (
    LEVEL,
    WIDE,
    Chance,
    GapChance,
    copies_a_unit,
    gap_chance,
    holm,
    widest_chance,
)
from .decompose import Decomposition

BASELINES = ("pca", "ica", "nmf", "random", "neurons")


@final
@dataclass(frozen=True)
class Trained:
    """One run of a site: how it was trained, and its curve latents."""

    name: str
    objective: str
    damage: str
    """What was damaged on purpose, the run's `control`; "none" otherwise."""
    seed: int
    held_out: float
    """Fraction of the inputs that it was not trained on."""
    fvu: float
    dictionary: SAE
    family: CurveFamily
    circle: Circle | None

    @property
    def control(self) -> str:
        """The kind of control: a baseline's objective, or what was damaged; empty for other runs.

        A control is not expected to find missing curves.
        """
        if self.objective in BASELINES:
            return self.objective
        return "" if self.damage == "none" else self.damage

    @property
    def orientations(self) -> list[float]:
        """Orientations of the curve latents, in degrees."""
        return [self.family.orientation(m) for m in self.family.members]

    @property
    def copies(self) -> list[bool]:
        """For each curve latent, True if its decoder row copies a unit."""
        return copies_a_unit(self.rows)

    @property
    def rows(self) -> Float[np.ndarray, "s d"]:
        """The decoder rows of the curve latents."""
        chosen: np.ndarray = self.dictionary.W_dec.detach().float().cpu().numpy()
        return chosen[self.family.members]


@final
@dataclass(frozen=True)
class Site:
    """A site of a subject: its units, the runs trained on it, and what they show together."""

    name: str
    subject: str
    units: CurveFamily
    runs: Sequence[Trained]
    decompositions: Sequence[Decomposition] = ()
    umap: Float[np.ndarray, "s 3"] | None = None
    examples_note: str = ""
    """Why there are no dataset examples, if examples were asked for and there are none."""

    @cached_property
    def trained(self) -> list[Trained]:
        """The runs that are not controls."""
        return [run for run in self.runs if not run.control]

    @cached_property
    def gaps(self) -> list[Gap]:
        """The gaps of 30 degrees and more between neighbouring curve units."""
        found = gaps([self.units.orientation(m) for m in self.units.members])
        return [gap for gap in found if gap.degrees >= WIDE]

    @cached_property
    def units_chance(self) -> Chance | None:
        """The widest gap of the units, against as many uniform orientations: a wide one is
        extreme."""
        return widest_chance([self.units.orientation(m) for m in self.units.members], large=True)

    @cached_property
    def chances(self) -> dict[str, GapChance]:
        """For each run with curve latents, its gaps compared with chance."""
        controls: dict[str, list[float]] = {}
        for run in self.runs:
            if run.control:
                controls.setdefault(run.control, []).extend(run.orientations)
        found = {
            run.name: gap_chance(
                self.gaps if self.units.members else [],
                run.orientations,
                run.copies,
                {} if run.control else controls,
            )
            for run in self.runs
        }
        return {name: one for name, one in found.items() if one is not None}

    @property
    def empty(self) -> bool:
        """True if neither the site nor any of its runs has a curve detector."""
        return not self.units.members and not any(run.family.members for run in self.runs)

    def gap_of(self, orientation: float) -> int | None:
        """The number, from 1, of the gap that holds an orientation; None outside all gaps."""
        inside = (i for i, gap in enumerate(self.gaps, 1) if within(gap, orientation))
        return next(inside, None)

    @cached_property
    def pooled(self) -> tuple[Float[np.ndarray, "s d"], list[float]]:
        """Decoder rows and orientations of the curve latents of all runs but controls."""
        angles = [angle for run in self.trained for angle in run.orientations]
        rows = [run.rows for run in self.trained]
        width = self.units.responses.shape[-1]
        return (np.concatenate(rows) if rows else np.zeros((0, width))), angles

    @cached_property
    def circle(self) -> Circle | None:
        """The circle of the first run that is no control.

        Runs are not pooled: different seeds find the same rows, and permuting orientations among
        such copies would make the chance level too low.
        """
        return self.trained[0].circle if self.trained else None


def within(gap: Gap, orientation: float) -> bool:
    """True if an orientation lies inside a gap, its ends excluded."""
    return 0 < (orientation - gap.start) % 360 < gap.degrees


def remaining(gap: Gap, orientations: Sequence[float]) -> float:
    """The widest stretch of a gap without a curve detector once those orientations are added."""
    inside = [(o - gap.start) % 360 for o in orientations]
    edges = sorted([0.0, gap.degrees, *(o for o in inside if 0 < o < gap.degrees)])
    return max(b - a for a, b in itertools.pairwise(edges))


def chance_gap(count: int) -> float:
    """The expected widest gap between `count` random directions: 360 H_n / n degrees."""
    return 360.0 * sum(1 / i for i in range(1, count + 1)) / count if count else 360.0


def corrected(sites: Sequence[Site]) -> dict[str, float]:
    """P values that trained runs leave narrower gaps than units and a random surplus would,
    corrected by Holm's method for the number of runs of all sites together."""
    names, p_values = [], []
    for site in sites:
        for run in site.trained:
            chance = site.chances.get(run.name)
            if chance is not None and chance.surplus is not None:
                names.append(run.name)
                p_values.append(chance.surplus.p)
    return dict(zip(names, holm(p_values), strict=True))


def evident(sites: Sequence[Site]) -> list[str]:
    """The runs whose corrected P value is below 0.05."""
    return [name for name, p in corrected(sites).items() if p < LEVEL]


def preferred(family: CurveFamily, latent: int) -> float | None:
    """The orientation that a latent prefers; None if no drawn curve activates it."""
    return round(family.orientation(latent), 1) if family.scores.max[latent] > 0 else None


def study_figures(sites: Sequence[Site]) -> dict[str, Any]:
    """Counts over all sites and runs without controls, the widest gap of units, the mean of the
    runs' widest gaps, and the figures of each site."""
    trained = [run for site in sites for run in site.trained]
    widest = [run.family.gap.degrees for run in trained]
    return {
        "runs": sum(len(site.runs) for site in sites),
        "comparisons": len(corrected(sites)),
        "below_chance": len(evident(sites)),
        "curve_units": sum(len(site.units.members) for site in sites),
        "curve_latents": sum(len(run.family.members) for run in trained),
        "gap_units": round(max(site.units.gap.degrees for site in sites), 1),
        "gap_latents_mean": round(float(np.mean(widest)), 1) if widest else None,
        "sites": [site_figures(site, corrected(sites)) for site in sites],
    }


def site_figures(site: Site, p_values: Mapping[str, float]) -> dict[str, Any]:
    """Gaps, runs, circle and decompositions of a site; angles in degrees."""
    trained = [round(run.family.gap.degrees, 1) for run in site.trained]
    return {
        "subject": site.subject,
        "site": site.name,
        "curve_units": len(site.units.members),
        "gap_units": round(site.units.gap.degrees, 1),
        "gap_units_chance": site.units_chance and site.units_chance.figures(),
        "gap_latents": trained,
        "gap_latents_mean": round(float(np.mean(trained)), 1) if trained else None,
        "runs": [
            {
                "run": run.name,
                "objective": run.objective,
                "control": run.control,
                "seed": run.seed,
                "fvu": round(run.fvu, 4),
                "curve_latents": len(run.family.members),
                "copies": sum(run.copies),
                "gap": round(run.family.gap.degrees, 1),
                "gap_by_chance": round(chance_gap(len(run.family.members)), 1),
                "left": [round(remaining(gap, run.orientations), 1) for gap in site.gaps],
                "chance": _chance_figures(site, run, p_values),
                "circle": _rounded(run.circle),
            }
            for run in site.runs
        ],
        "gaps": [{"from": round(g.start, 1), "degrees": round(g.degrees, 1)} for g in site.gaps],
        "circle": _rounded(site.circle),
        "decompositions": [_decomposition(site, one) for one in site.decompositions],
    }


def _chance_figures(
    site: Site, run: Trained, p_values: Mapping[str, float]
) -> dict[str, Any] | None:
    chance = site.chances.get(run.name)
    if chance is None:
        return None
    p = p_values.get(run.name)
    return chance.figures() | {"p_corrected": None if p is None else round(p, 4)}


def _decomposition(site: Site, one: Decomposition) -> dict[str, Any]:
    family = site.trained[0].family
    return {
        "unit": one.unit,
        "peaks": list(one.peaks),
        "latents": [component.latent for component in one.components],
        "orientations": [preferred(family, component.latent) for component in one.components],
        "explained": [round(component.explained, 3) for component in one.components],
        "all_latents": round(one.all_latents, 3),
        "random": [round(fraction, 3) for fraction in one.control],
    }


def latent_records(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """One record a curve latent, for latents.csv. `gap` numbers the gaps of gaps.csv; it is empty
    outside all gaps."""
    return [
        {
            "subject": site.subject,
            "site": site.name,
            "run": run.name,
            "objective": run.objective,
            "seed": run.seed,
            "latent": latent,
            "orientation": f"{orientation:.6g}",
            "copies_a_unit": int(copy),
            "gap": site.gap_of(orientation) or "",
        }
        for site in sites
        for run in site.runs
        for latent, orientation, copy in zip(
            run.family.members, run.orientations, run.copies, strict=True
        )
    ]


def gap_records(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """One record for each gap between curve units and each run, for gaps.csv.

    `remaining` is the widest stretch of the gap, in degrees, without a curve latent of the run.
    """
    return [
        {
            "subject": site.subject,
            "site": site.name,
            "gap": number,
            "start": f"{gap.start:.6g}",
            "degrees": f"{gap.degrees:.6g}",
            "run": run.name,
            "objective": run.objective,
            "seed": run.seed,
            "curve_latents": sum(within(gap, o) for o in run.orientations),
            "remaining": f"{remaining(gap, run.orientations):.6g}",
            "control": run.control,
        }
        for site in sites
        for number, gap in enumerate(site.gaps, 1)
        for run in site.runs
    ]


def _rounded(circle: Circle | None) -> dict[str, Any] | None:
    if circle is None:
        return None
    return {
        name: [round(x, 3) for x in v] if isinstance(v, tuple) else round(v, 3)
        for name, v in asdict(circle).items()
    }
