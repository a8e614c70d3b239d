"""The section of dictionaries of networks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..page.charts import Axis, Series, chart
from .findings import Scaling
from .runs import Dictionary

RUNS = ("series", "latents", "alive", "seed", "FVU", "slope of frequency",
        "nearest row (random)", "local dimension (random)")  # fmt: skip
MOST = 7
"""Dictionaries in a chart, at most."""


def wild_context(found: Scaling) -> dict[str, Any] | None:
    """Table, charts and regimes of dictionaries of networks; None without one."""
    if not found.wild():
        return None
    ordered = [one for series in found.series for one in series.runs]
    names = {one.run: series.name for series in found.series for one in series.runs}
    shown = chosen(found)
    left = len(ordered) - len(shown)
    return {
        "table": [RUNS, *(_wild(one, names[one.run]) for one in ordered)],
        "charts": wild_charts(shown, names, found.toys()),
        "regimes": [(series.name, series.record()["regime"]) for series in found.series],
        "left_out": f"The charts leave out {left} of the {len(ordered)} dictionaries: they show "
        "the largest and the smallest of a series, first seeds first."
        if left
        else "",
    }


def chosen(found: Scaling) -> list[Dictionary]:
    """The dictionaries of the charts: the largest of every series, then the smallest, and so on
    inwards, at most MOST."""
    queues = []
    for series in found.series:
        firsts = {one.latents: one for one in reversed(series.runs)}
        sizes = sorted(firsts)
        inwards = [sizes[-1 - i // 2] if i % 2 == 0 else sizes[i // 2] for i in range(len(sizes))]
        queues.append([firsts[size] for size in inwards])
    longest = max(map(len, queues), default=0)
    turns = [queue[i] for i in range(longest) for queue in queues if i < len(queue)]
    kept = {one.run for one in turns[:MOST]}
    return [one for series in found.series for one in series.runs if one.run in kept]


def _wild(one: Dictionary, series: str) -> list[str]:
    near, like, slope = one.near, one.like, one.slope
    return [
        f"{one.subject} {series}".strip(),
        f"{one.latents:,}",
        f"{one.alive:,}",
        str(one.seed),
        f"{one.fvu:.3f}",
        f"{slope.slope:.2f} \N{PLUS-MINUS SIGN} {slope.error:.2f}" if slope else "",
        f"{np.median(near.cosine_S):.2f} ({np.median(like.cosine_S):.2f})" if near and like else "",
        f"{near.dimension:.1f} ({like.dimension:.1f})" if near and like else "",
    ]


def wild_charts(
    wild: Sequence[Dictionary], names: dict[str, str], toys: Sequence[Dictionary] = ()
) -> list[tuple[str, Any]]:
    """Firing frequency against rank, and cosines of neighbours beside random directions and
    dictionaries of one known manifold."""
    firing, near = [], []
    for number, one in enumerate(wild):
        name = f"{names[one.run]}, S {one.latents:,}"
        falling = np.sort(one.frequency_S[one.frequency_S > 0])[::-1]
        firing.append(Series(name, 1.0 + np.arange(len(falling)), falling, colour=number))
        for each, dashed in ((one.near, False), (one.like, True)):
            if each is not None:
                label = f"random like {name}" if dashed else name
                near.append(_falling(label, each.cosine_S, dashed, number))
    largest: dict[str, Dictionary] = {}
    for one in toys:
        if one.shape and one.near:
            label = f"known {one.shape.name} of dimension {one.shape.dimension}"
            if label not in largest or largest[label].latents < one.latents:
                largest[label] = one
    for number, (label, one) in enumerate(largest.items(), len(wild)):
        if one.near:
            near.append(_falling(f"{label}, S {one.latents:,}", one.near.cosine_S, False, number))
    return [
        (
            "Firing frequency",
            chart(firing, Axis("rank", log=True), Axis("fraction of vectors", log=True)),
        ),
        (
            "Most similar other row",
            chart(near, Axis("fraction of latents"), Axis("cosine")),
        ),
    ]


def _falling(name: str, cosine_S: np.ndarray, dashed: bool, colour: int) -> Series:
    cosine = np.sort(cosine_S)[::-1]
    place = (np.arange(len(cosine)) + 0.5) / len(cosine)
    return Series(name, place, cosine, dashed=dashed, colour=colour)
