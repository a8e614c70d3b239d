"""What a comparison of runs looks like: a table for the terminal, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..measures.matching import ANTIPODAL, DENSE, SHARED, Directions, Match, nearest_cosine
from ..page.render import render
from .charts import Axis, Series, chart

ONE = ("number", "run", "objective", "seed", "latents", "never firing", "dense", "antipodal",
       "slope", "neighbour")  # fmt: skip
TWO = ("first", "second", "shared", "firing", "encoder", "decoder", "stability")


def one_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row of figures a run."""
    return [
        [
            str(number),
            run["run"],
            run["objective"],
            _told(run["seed"]),
            str(run["latents"]),
            _told(run["never_firing"]),
            _count(run["dense"]),
            _count(run["antipodal"]),
            _told(run["frequency_slope"], ".2f"),
            _told(run["nearest_cosine"]["0.5"], ".2f"),
        ]
        for number, run in enumerate(figures["runs"], 1)
    ]


def two_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row of figures a pair of runs."""
    names = ("shared", "shared_firing", "encoder_cosine", "decoder_cosine", "stability")
    return [
        [pair["first"], pair["second"], *(_told(pair[name], ".3f") for name in names)]
        for pair in figures["pairs"]
    ]


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


def render_page(
    figures: Mapping[str, Any],
    runs: Sequence[Directions],
    matches: Mapping[tuple[int, int], Match],
) -> str:
    """The page as HTML, one file that needs nothing else."""
    shares = figures["together"]["found_in_others"]
    return render(
        Path(__file__).parent,
        {
            "one": [ONE, *one_rows(figures)],
            "two": [TWO, *two_rows(figures)],
            "together": figures["together"],
            "others": [(i, f"{100 * share:.1f} %") for i, share in enumerate(shares)],
            "charts": charts(runs, matches),
            "rules": {"shared": SHARED, "dense": f"{100 * DENSE:g} %", "antipodal": ANTIPODAL},
        },
    )


def charts(
    runs: Sequence[Directions], matches: Mapping[tuple[int, int], Match]
) -> list[dict[str, str]]:
    """Matched cosines, firing frequencies and neighbours, each as the sorted values of all;
    runs go by their numbers in the table."""
    names = [str(number) for number in range(1, len(runs) + 1)]
    paired = []
    for (i, j), found in matches.items():
        both = np.sort(np.minimum(found.encoder_M, found.decoder_M))[::-1]
        paired.append(Series(f"{names[i]} and {names[j]}", _shares(both), both))
    firing = [
        Series(name, 1.0 + np.arange(len(run)), np.sort(run.frequency_S)[::-1])
        for name, run in zip(names, runs, strict=True)
        if np.isfinite(run.frequency_S).all()
    ]
    near = []
    for name, run in zip(names, runs, strict=True):
        cosine = np.sort(nearest_cosine(run))[::-1]
        near.append(Series(name, _shares(cosine), cosine))
    share, cosine_axis = Axis("share of the latents"), Axis("cosine")
    rank, frequency = Axis("rank", log=True), Axis("firing frequency", log=True)
    return [
        {
            "name": "Matched latents",
            "text": "The smaller of the two cosines of each matched pair, in order.",
            "svg": chart(paired, share, cosine_axis),
        },
        {
            "name": "Firing frequency against rank",
            "text": "The share of held-out vectors on which each latent fires.",
            "svg": chart(firing, rank, frequency),
        },
        {
            "name": "Nearest neighbours",
            "text": "The cosine of each decoder row with the one most like it, in order.",
            "svg": chart(near, share, cosine_axis),
        },
    ]


def _shares(values: np.ndarray) -> np.ndarray:
    return (1.0 + np.arange(len(values))) / max(len(values), 1)


def _told(value: float | int | str | None, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def _count(listed: Sequence[object] | None) -> str:
    return "-" if listed is None else str(len(listed))
