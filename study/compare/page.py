"""What a comparison of runs shows: a table for the terminal, and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..measures.matching import ANTIPODAL, DENSE, SHARED, Directions, Match, nearest_cosine
from ..page.charts import Axis, Series, chart
from .findings import Comparison

ONE = ("number", "run", "objective", "seed", "k", "latents", "FVU", "never firing", "dense",
       "antipodal", "slope", "neighbour")  # fmt: skip
TWO = ("first", "second", "seeds", "k", "latents", "FVU", "shared", "firing", "encoder", "decoder",
       "stability")  # fmt: skip


def one_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row of figures a run."""
    return [
        [
            str(number),
            run["run"],
            run["objective"] + ("" if run["control"] == "none" else f", {run['control']}"),
            _text(run["seed"]),
            run["k"] or "-",
            str(run["latents"]),
            _text(run["fvu"], ".3f"),
            _text(run["never_firing"]),
            _count(run["dense"]),
            _count(run["antipodal"]),
            _text(run["frequency_slope"], ".2f"),
            _text(run["nearest_cosine"]["0.5"], ".2f"),
        ]
        for number, run in enumerate(figures["runs"], 1)
    ]


def two_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row of figures a pair of runs."""
    names = ("shared", "shared_firing", "encoder_cosine", "decoder_cosine", "stability")
    runs = {run["run"]: run for run in figures["runs"]}
    rows = []
    for pair in figures["pairs"]:
        both = runs[pair["first"]], runs[pair["second"]]
        about = [
            " and ".join(_text(run[name] if run[name] != "" else None, form) for run in both)
            for name, form in (("seed", ""), ("k", ""), ("latents", ""), ("fvu", ".3f"))
        ]
        if pair["same_seed"]:
            about[0] += " (same)"
        shared = (_text(pair[name], ".3f") for name in names)
        rows.append([pair["first"], pair["second"], *about, *shared])
    return rows


def table(figures: Mapping[str, Any]) -> str:
    """Both tables as text, columns aligned."""
    together = figures["together"]
    ending = (
        f"shared {together['shared']:.3f} (spread {together['shared_spread']:.3f}), stability "
        f"{together['stability']:.3f} (spread {together['stability_spread']:.3f}) over "
        f"{len(figures['pairs'])} pairs"
    )
    return "\n\n".join(
        [columns([ONE, *one_rows(figures)]), columns([TWO, *two_rows(figures)]), ending]
    )


def context(found: Comparison) -> dict[str, Any]:
    """What page.html shows."""
    figures = found.figures()
    together = figures["together"]
    parts = together["found_in_others"]
    return {
        "lead": (
            "Latents are paired so that the cosines of their encoder and decoder directions are "
            "largest. A pair is shared where both cosines are high."
        ),
        "numbers": [
            {
                "value": f"{100 * together['shared']:.1f} %",
                "of": f"± {100 * together['shared_spread']:.1f}",
                "text": "of latents are shared by two runs",
            },
            {
                "value": f"{together['stability']:.3f}",
                "of": f"± {together['stability_spread']:.3f}",
                "text": "is the stability: the mean cosine of matched decoder rows",
            },
        ],
        "warning": figures["warning"],
        "one": [ONE, *one_rows(figures)],
        "two": [TWO, *two_rows(figures)],
        "others": [(i, f"{100 * part:.1f} %") for i, part in enumerate(parts)],
        "charts": charts([run.directions for run in found.runs], found.matches),
        "rules": {"shared": SHARED, "dense": f"{100 * DENSE:g} %", "antipodal": ANTIPODAL},
    }


def charts(
    runs: Sequence[Directions], matches: Mapping[tuple[int, int], Match]
) -> list[dict[str, Any]]:
    """Matched cosines, firing frequencies and neighbours, each as the sorted values of all;
    runs go by their numbers in the table."""
    names = [str(number) for number in range(1, len(runs) + 1)]
    paired = []
    for (i, j), found in matches.items():
        both = np.sort(np.minimum(found.encoder_M, found.decoder_M))[::-1]
        paired.append(Series(f"{names[i]} and {names[j]}", _fractions(both), both))
    firing = [
        Series(name, 1.0 + np.arange(len(run)), np.sort(run.frequency_S)[::-1])
        for name, run in zip(names, runs, strict=True)
        if np.isfinite(run.frequency_S).all()
    ]
    near = []
    for name, run in zip(names, runs, strict=True):
        cosine = np.sort(nearest_cosine(run))[::-1]
        near.append(Series(name, _fractions(cosine), cosine))
    part, cosine_axis = Axis("fraction of the latents"), Axis("cosine")
    rank, frequency = Axis("rank", log=True), Axis("firing frequency", log=True)
    return [
        {
            "name": "Matched latents",
            "text": "The smaller of the two cosines of each matched pair, in order.",
            "svg": chart(paired, part, cosine_axis),
        },
        {
            "name": "Firing frequency against rank",
            "text": "The fraction of held-out vectors on which each latent fires.",
            "svg": chart(firing, rank, frequency),
        },
        {
            "name": "Nearest neighbours",
            "text": "The cosine of each decoder row with the one most like it, in order.",
            "svg": chart(near, part, cosine_axis),
        },
    ]


def _fractions(values: np.ndarray) -> np.ndarray:
    return (1.0 + np.arange(len(values))) / max(len(values), 1)


def _text(value: float | int | str | None, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def _count(listed: Sequence[object] | None) -> str:
    return "-" if listed is None else str(len(listed))
