"""Runs that differ in size and seed only, and in which regime they seem to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from ..core.trained import BASELINES
from ..measures.allocation import Slope, log_slope
from ..measures.curve_growth import growth
from .curve_family import CurveTest, Family
from .runs import Dictionary

FEWEST = 4
"""Sizes that an exponent needs to say anything about a regime."""
RANGE = 8.0
"""The largest of them over the smallest."""
SIGMAS = 2.0
"""Standard errors that an exponent is judged by."""
LARGE = 0.5
"""An exponent that may be 0 and may be this large says nothing."""


@final
@dataclass(frozen=True)
class Series:
    """Runs of one store, site, objective and sparsity, smallest first.

    families: their curve families, where these were measured
    alive, loss: exponents of living latents and of FVU against latents
    curves:   exponent of curve latents against living latents
    tail:     the same over the FEWEST largest sizes, which a regime is read from: at few latents
              any feature gets its first ones
    weak, inside: the same as tail for curve latents at any strength, and for decoder rows inside
              the curve units
    by_size:  exponent of curve latents against latents
    random:   exponent of curve latents among random directions against living latents
    """

    name: str
    control: bool
    runs: Sequence[Dictionary]
    families: Sequence[Family]
    alive: Slope | None
    loss: Slope | None
    curves: Slope | None
    tail: Slope | None
    weak: Slope | None
    inside: Slope | None
    by_size: Slope | None
    random: Slope | None

    @property
    def sizes(self) -> list[int]:
        """Different numbers of latents."""
        return sorted({one.latents for one in self.runs})

    @property
    def seeds(self) -> int:
        """Different seeds."""
        return len({one.seed for one in self.runs})

    def record(self) -> dict[str, Any]:
        """One record for result.json and series.csv."""
        slopes = {
            "alive_exponent": self.alive,
            "fvu_exponent": self.loss,
            "curve_exponent": self.by_size,
            "curve_exponent_alive": self.curves,
            "curve_exponent_tail": self.tail,
            "any_strength_exponent_tail": self.weak,
            "in_curve_units_exponent_tail": self.inside,
            "random_curve_exponent": self.random,
        }
        record: dict[str, Any] = {
            "series": self.name,
            "runs": len(self.runs),
            "smallest": self.sizes[0],
            "largest": self.sizes[-1],
            "seeds": self.seeds,
        }
        for name, slope in slopes.items():
            record[name] = "" if slope is None else round(slope.slope, 3)
            known = slope is not None and slope.error is not None
            record[f"{name}_error"] = round(slope.error or 0.0, 3) if slope and known else ""
        return record | {"regime": regime_sentence(self)}


def series_of(found: Sequence[Dictionary], test: CurveTest | None) -> list[Series]:
    """Runs on networks by series, in order of appearance."""
    groups: dict[tuple[str, str], list[Dictionary]] = {}
    for one in found:
        groups.setdefault((one.store, one.series), []).append(one)
    stores: dict[str, set[str]] = {}
    for store, name in groups:
        stores.setdefault(name, set()).add(store)
    families = {family.run: family for family in test.families} if test else {}
    made = []
    for (store, name), runs in groups.items():
        runs = sorted(runs, key=lambda one: (one.latents, one.seed))
        its = [families[one.run] for one in runs if one.run in families]
        sizes = [one.latents for one in runs]
        least = sorted(set(sizes))[-FEWEST:][0]
        grown = its if len(set(sizes)) > 1 else []  # one size has no exponent
        large = [family for family in grown if family.latents >= least]
        alive, of_large = [one.alive for one in grown], [one.alive for one in large]
        made.append(
            Series(
                name=name if len(stores[name]) == 1 else f"{name}, {store}",
                control=any(one.objective in BASELINES or one.damaged for one in runs),
                runs=runs,
                families=its,
                alive=growth(sizes, alive or [one.alive for one in runs]),
                loss=_loss(runs),
                curves=growth(alive, [one.curves for one in grown]),
                tail=growth(of_large, [one.curves for one in large]),
                weak=growth(of_large, [one.weak for one in large]),
                inside=growth(of_large, [one.inside for one in large]),
                by_size=growth([one.latents for one in grown], [one.curves for one in grown]),
                random=growth(alive, [one.random for one in grown]),
            )
        )
    return made


def _loss(runs: Sequence[Dictionary]) -> Slope | None:
    known = [one for one in runs if np.isfinite(one.fvu) and one.fvu > 0]
    if len({one.latents for one in known}) < 2:
        return None
    return log_slope(
        np.array([float(one.latents) for one in known]), np.array([one.fvu for one in known])
    )


def regime_sentence(series: Series) -> str:
    """In which regime a series seems to be, how sure that is, and what is missing.

    In the allocation model a manifold that is common enough to have latents at every size has
    n ~ N^x of N latents, where x = 1 if common manifolds absorb latents (beta < alpha), and
    x = (1 + alpha) / (1 + beta) < 1 if each further latent finds a feature.
    """
    if series.control:
        return "A control: no regime is asked of it."
    lacking = _lacking(series)
    if not series.families:
        return f"Not known: {'; '.join(lacking)}. {_signs(series)}".strip()
    slope, last = series.tail, series.families[-1]
    if slope is None or slope.error is None or lacking:
        return f"Not known: {'; '.join(lacking) or 'no exponent can be fitted'}."
    low, high = (slope.slope + sign * SIGMAS * slope.error for sign in (-1, 1))
    power = f"{slope.slope:.2f} \N{PLUS-MINUS SIGN} {slope.error:.2f}"
    sizes = series.sizes[-FEWEST:]
    told = f"curve latents ~ living latents^({power}) from {sizes[0]:,} to {sizes[-1]:,} latents"
    spread = SIGMAS * float(np.sqrt(last.random + last.curves))
    if low > 0 and last.curves <= last.random + spread:
        return (
            f"By the criteria for curves not known: at {last.latents:,} latents there are "
            f"{last.curves} curve latents, and {last.random} among as many random directions, so "
            f"their growth says nothing. {_by_rows(series)}"
        ).strip()
    if low <= 0 and high >= LARGE:
        return f"Not known: the error leaves room for growth and for none ({told})."
    return f"{_reading(low, high)} ({told}{_others(series)}). {_sure(series)}"


def _reading(low: float, high: float) -> str:
    """What an exponent between low and high says."""
    if low <= 0 < high:
        return "The curve family does not grow measurably: no sign that it absorbs latents"
    if high <= 0:
        return "The curve family does not grow: no sign that it absorbs latents"
    if high < 1:
        return (
            "The curve family takes more latents but a falling part of them, as where each further "
            "latent finds a feature of its own"
        )
    return "The curve family keeps its part of the latents, as where manifolds absorb them"


def _by_rows(series: Series) -> str:
    """What decoder rows in the curve units say, where more of them are than by chance."""
    slope, last = series.inside, series.families[-1]
    chance = last.random_inside + SIGMAS * float(np.sqrt(last.random_inside + last.inside))
    if slope is None or slope.error is None or last.inside <= chance:
        return ""
    low, high = (slope.slope + sign * SIGMAS * slope.error for sign in (-1, 1))
    power = f"{slope.slope:.2f} \N{PLUS-MINUS SIGN} {slope.error:.2f}"
    return (
        f"By decoder rows: {_reading(low, high).replace('The', 'the', 1)} (rows in the curve units "
        f"~ living latents^({power}), {last.inside} at {last.latents:,} latents and "
        f"{last.random_inside} by chance). {_sure(series)}"
    )


def _others(series: Series) -> str:
    """The exponents of the two other counts."""
    last, text = series.families[-1], ""
    named = (
        ("at any strength of response", series.weak, last.weak <= last.random_weak),
        ("by decoder rows in the curve units", series.inside, last.inside <= last.random_inside),
    )
    for name, slope, few in named:
        if slope is not None and slope.error is not None:
            text += f"; {name} {slope.slope:.2f} \N{PLUS-MINUS SIGN} {slope.error:.2f}"
            text += ", but no more than among random directions" if few else ""
    return text


def _lacking(series: Series) -> list[str]:
    """What is missing for an exponent, in phrases."""
    sizes, lacking = series.sizes, []
    if not series.families:
        lacking.append("the latents of a known manifold were not counted (--curves does, for runs "
                       "on a vision network)")  # fmt: skip
    if len(sizes) < FEWEST or sizes[-1] < RANGE * sizes[0]:
        lacking.append(
            f"{len(sizes)} {'size' if len(sizes) == 1 else 'sizes'} from {sizes[0]:,} to "
            f"{sizes[-1]:,}, where {FEWEST} over a factor of {RANGE:g} are needed"
        )
    if series.families and not any(family.curves for family in series.families):
        lacking.append("no run has a curve latent")
    return lacking


def _sure(series: Series) -> str:
    """How sure that is."""
    each = [sum(one.latents == size for one in series.runs) for size in series.sizes]
    seeds = "one seed" if max(each) == 1 else f"{min(each)} to {max(each)} runs a size"
    if min(each) == max(each) > 1:
        seeds = f"{each[0]} runs a size"
    return (
        f"Weak evidence: one manifold of many, {len(series.sizes)} sizes, {seeds}; latents and "
        "features relate many to many."
    )


def _signs(series: Series) -> str:
    """How alike neighbouring rows are as sizes grow, beside random directions."""
    both = [(one.latents, one.near, one.like) for one in series.runs if one.near and one.like]
    if len(both) < 2:
        return ""
    text = [
        f"{float(np.median(near.cosine_S)):.2f} (random {float(np.median(like.cosine_S)):.2f}) at "
        f"{latents:,}"
        for latents, near, like in (both[0], both[-1])
    ]
    return f"A sign at most: the median cosine with the most similar row is {' and '.join(text)}."
