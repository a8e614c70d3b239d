"""The section of the direct test: curve latents against the number of latents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..measures.allocation import Slope
from ..measures.curve_growth import SAME, STRONG, TOLERANCE, growth
from ..page.charts import Axis, Series, chart
from .curve_family import Family
from .findings import Scaling
from .series import FEWEST
from .series import Series as Runs

HEAD = ("series", "latents", "alive", "seed", "curve latents (random)", "at any strength (random)",
        "in curve units (random)", "distinct orientations",
        "distinct directions", "copies of units", "widest gap (chance)", "median gap",
        "FVU, curve rows", "FVU, rest")  # fmt: skip
EXPONENTS = ("series", "sizes", "seeds", "living latents", "curve latents",
             "curve against living", "largest four sizes", "at any strength", "in curve units",
             "random directions", "FVU")  # fmt: skip


def curves_headline(figures: Mapping[str, Any]) -> list[str]:
    """One sentence for each series whose curve latents were counted."""
    return [
        f"{one['series']}: {one['regime']}"
        for one in figures["series"]
        if figures["curve_family"] and not one["regime"].startswith("A control")
    ]


def curves_table(figures: Mapping[str, Any]) -> list[str]:
    """A table of the families for the terminal; none without the test."""
    if not figures["curve_family"]:
        return []
    names = ("run", "latents", "alive", "curves", "random_curves", "distinct_orientations",
             "distinct_directions", "widest_gap", "fvu_curves")  # fmt: skip
    rows = [[str(one[name]) for name in names] for one in figures["curve_family"]]
    return [columns([[name.replace("_", " ") for name in names], *rows])]


def curves_context(found: Scaling) -> dict[str, Any] | None:
    """Table, exponents and charts; None where curve latents were not counted."""
    test = found.curves
    if test is None:
        return None
    series = [replace(one, name=one.name.removeprefix(f"{test.site}, ")) for one in found.series]
    pairs = [(one, family) for one in series for family in one.families]
    kinds = [planted.kind for planted in test.families[0].planted]
    return {
        "lead": (
            f"Curves of every orientation are a manifold that is known to be in this network. "
            f"Here are the latents at {test.site} of {test.subject} that detect curves by the "
            f"criteria of the study of curve detectors; {test.units} of its {test.width} units do. "
            f"A latent lives if it fires on the rows of {test.store} that were read."
        ),
        "charts": charts(series),
        "exponents": [EXPONENTS, *(_exponents(one) for one in series if one.families)],
        "table": [HEAD, *(_row(one.name, family) for one, family in pairs)],
        "key": (
            "In brackets: among as many random directions with the second moments of the living "
            "decoder rows. At any strength: those that pass all criteria but that of a strong "
            "response. In curve units: living latents with more than half of the squared norm of "
            "the decoder row in the curve units. Distinct orientations: "
            f"{TOLERANCE:g} degrees apart or more; distinct directions: decoder rows with a "
            f"cosine below {SAME:g}. Chance: mean widest gap of as many uniform orientations. "
            f"Curve rows: {test.rows_curves:,} of {test.rows:,} held-out rows, on which a curve "
            f"unit reaches {STRONG:g} of the 99 % quantile of its activations above 0, and "
            "exceeds all other units, each divided by its own."
        ),
        "planted": [
            ("series", "latents", "seed", *(f"{kind}" for kind in kinds)),
            *(_planted(one.name, family) for one, family in pairs),
            *(_planted_exponents(one, kinds) for one in series if one.families),
        ]
        if kinds
        else None,
    }


def charts(series: Sequence[Runs]) -> list[tuple[str, Any]]:
    """Curve latents, their fraction, gaps and loss against the number of latents."""
    counts, parts, gaps, losses = [], [], [], []
    for number, one in enumerate(series):
        if not one.families:
            continue
        x = np.array([float(size) for size in one.sizes])

        def mean(key: str, one: Runs = one) -> np.ndarray:
            return np.array([_mean(one.families, size, key) for size in one.sizes])

        curves, alive, random = mean("curves"), mean("alive"), mean("random")
        counts += [
            Series(one.name, x, curves, colour=number),
            Series(f"random like {one.name}", x, random, dashed=True, colour=number),
        ]
        parts += [
            Series(one.name, x, curves / np.maximum(alive, 1), colour=number),
            Series(f"random like {one.name}", x, random / np.maximum(alive, 1), dashed=True,
                   colour=number),
        ]  # fmt: skip
        wide = np.array(
            [np.mean([f.tiling.widest for f in one.families if f.latents == s]) for s in one.sizes]
        )
        by_chance = np.array(
            [np.mean([f.tiling.chance for f in one.families if f.latents == s]) for s in one.sizes]
        )
        gaps += [
            Series(one.name, x, wide, colour=number),
            Series(f"chance, {one.name}", x, by_chance, dashed=True, colour=number),
        ]
        losses += [
            Series(f"curve rows, {one.name}", x, mean("fvu_curves"), colour=number),
            Series(f"other rows, {one.name}", x, mean("fvu_rest"), dashed=True, colour=number),
        ]
    axis = Axis("latents S", log=True)
    return [
        ("Curve latents", chart(counts, axis, Axis("curve latents", log=True))),
        ("Fraction of living latents", chart(parts, axis, Axis("curve / living", from_zero=True))),
        ("Widest gap", chart(gaps, axis, Axis("degrees", from_zero=True))),
        ("Loss", chart(losses, axis, Axis("FVU", log=True))),
    ]


def _mean(families: Sequence[Family], latents: int, key: str) -> float:
    return float(np.mean([getattr(one, key) for one in families if one.latents == latents]))


def _row(series: str, one: Family) -> list[str]:
    tiling = one.tiling
    return [
        series,
        f"{one.latents:,}",
        f"{one.alive:,}",
        str(one.seed),
        f"{one.curves:,} ({one.random:,})",
        f"{one.weak:,} ({one.random_weak:,})",
        f"{one.inside:,} ({one.random_inside:,})",
        str(tiling.distinct),
        str(tiling.directions),
        str(one.copies),
        f"{tiling.widest:.0f}° ({tiling.chance:.0f}°)",
        f"{tiling.median:.1f}°" if one.curves else "",
        f"{one.fvu_curves:.3f}" if np.isfinite(one.fvu_curves) else "",
        f"{one.fvu_rest:.3f}" if np.isfinite(one.fvu_rest) else "",
    ]


def _exponents(one: Runs) -> list[str]:
    slopes = (
        one.alive,
        one.by_size,
        one.curves,
        one.tail,
        one.weak,
        one.inside,
        one.random,
        one.loss,
    )
    sizes = f"{len(one.sizes)}, {one.sizes[0]:,} to {one.sizes[-1]:,}"
    return [one.name, sizes, str(one.seeds), *map(_text, slopes)]


def _text(slope: Slope | None) -> str:
    if slope is None:
        return ""
    error = "" if slope.error is None else f" \N{PLUS-MINUS SIGN} {slope.error:.2f}"
    return f"{slope.slope:.2f}{error}"


def _planted(series: str, one: Family) -> list[str]:
    cells = [
        f"{kind.latents:,} on {kind.found} / {kind.features}"
        if kind.features
        else f"{kind.latents:,}"
        for kind in one.planted
    ]
    return [series, f"{one.latents:,}", str(one.seed), *cells]


def _planted_exponents(one: Runs, kinds: Sequence[str]) -> list[str]:
    """Exponents of the latents of each kind against living latents, over the largest sizes."""
    large = [family for family in one.families if family.latents in one.sizes[-FEWEST:]]
    alive = [family.alive for family in large]
    counts = [
        [next((p.latents for p in family.planted if p.kind == kind), 0) for family in large]
        for kind in kinds
    ]
    exponents = [_text(growth(alive, numbers)) for numbers in counts]
    return [one.name, "exponent", "", *exponents]
