"""Charts and tables of scores: of every latent, and of several dictionaries."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ..page.charts import Axis, Series, chart
from .cards import DASH, MINUS, signed
from .config import Kind
from .findings import MOMENTS, Dictionary, Interpretation, scores

WIDTH = 720.0  # of a chart
ROW, STACK, BIN = 74.0, 7.0, 0.025
NARROW, THIN = 400.0, 30.0  # width of a chart of dictionaries, and height of its rows

MEASURE: Mapping[Kind, str] = {
    "detection": "balanced accuracy",
    "fuzzing": "balanced accuracy",
    "simulation": "correlation",
    "intruder": "intruders found",
    "embedding": "AUROC",
}
CHANCE: Mapping[Kind, float] = {
    "detection": 0.5,
    "fuzzing": 0.5,
    "simulation": 0.0,
    "intruder": 0.2,
    "embedding": 0.5,
}
CONTROL: Mapping[Kind, str] = {
    "detection": "another's sentence",
    "fuzzing": "another's sentence",
    "simulation": "another's sentence",
    "intruder": "four latents mixed",
    "embedding": "another's sentence",
}


def axis_of(values: Sequence[float], width: float = WIDTH) -> tuple[float, list[dict[str, str]]]:
    """Where an axis that ends at 1 begins, in quarters at most 0, and its ticks."""
    low = min(0.0, math.floor(4 * min(values, default=0.0)) / 4)
    steps = round((1 - low) * 4)
    ticks = [
        {"x": f"{width * t / steps:.1f}", "text": f"{low + t / 4:g}".replace("-", MINUS)}
        for t in range(steps + 1)
    ]
    return low, ticks


def across(value: float, low: float, width: float = WIDTH) -> float:
    """The place of a value on such an axis."""
    return width * (value - low) / (1 - low)


def latent_chart(latents: Sequence[Interpretation], kinds: Sequence[Kind]) -> dict[str, Any]:
    """A row for each kind of score, own sentences above the controls. A dot is a latent; dots stack
    where they meet. A line marks the mean, a dashed one chance."""
    found = [
        (kind, shuffled, values)
        for kind in kinds
        for shuffled in (False, True)
        if (values := scores(latents, kind, shuffled))
    ]
    low, ticks = axis_of([value for _, _, values in found for _, value in values])
    rows, bottom = [], 0.0
    for kind, shuffled, values in found:
        bottom += ROW
        mean = sum(value for _, value in values) / len(values)
        place = across(mean, low)
        rows.append(
            {
                "name": kind,
                "whose": CONTROL[kind] if shuffled else f"own: {MEASURE[kind]}",
                "shuffled": shuffled,
                "y": f"{bottom:.1f}",
                "dots": _dots(values, bottom, low),
                "mean": f"{place:.1f}",
                "mean_text": signed(mean),
                "text_x": f"{place + (6 if place < WIDTH - 40 else -6):.1f}",
                "end": place >= WIDTH - 40,
                "chance": f"{across(CHANCE[kind], low):.1f}",
            }
        )
    size = {"height": f"{bottom + 36:.0f}", "foot": f"{bottom + 18:.0f}"}
    return {"rows": rows, "ticks": ticks, **size}


def _dots(values: Sequence[tuple[int, float]], bottom: float, low: float) -> list[dict[str, str]]:
    """Dots at their values, stacked within bins so that the highest stack fits into a row."""
    bins = [round(value / BIN) for _, value in values]
    most = max(bins.count(place) for place in set(bins))
    step = min(STACK, (ROW - 16) / max(most - 1, 1))
    heights: dict[int, int] = {}
    dots = []
    for latent, value in sorted(values, key=lambda pair: pair[1]):
        place = round(value / BIN)
        height = heights[place] = heights.get(place, -1) + 1
        dots.append(
            {
                "x": f"{across(place * BIN, low):.1f}",
                "y": f"{bottom - 5 - step * height:.1f}",
                "title": f"latent {latent}: {value:.2f}",
            }
        )
    return dots


def dictionary_table(dictionaries: Sequence[Mapping[str, Any]], kinds: Sequence[Kind]) -> Any:
    """A row for each dictionary: its latents, and the mean of every score with its control."""
    heads: list[str] = []
    rows = []
    for kind in kinds:
        heads += ["simulation, top and random", "random only"] if kind == "simulation" else [kind]
    for one in dictionaries:
        cells = []
        for kind in kinds:
            cells.append(_cell(one.get(kind), one.get(f"{kind}_shuffled")))
            if kind == "simulation":
                cells.append(_cell(one.get("simulation_random_only"), None))
        rows.append({"run": one["run"], "latents": one["latents"], "cells": cells})
    return {"heads": heads, "rows": rows}


def _cell(mean: Mapping[str, Any] | None, control: Mapping[str, Any] | None) -> dict[str, Any]:
    """A mean, and below it its interval, how many scores are undefined, and its control."""
    if not mean:
        return {"mean": DASH, "below": []}
    below = []
    if mean["mean"] is not None and mean["low"] is not None:
        below.append(f"{signed(mean['low'])} to {signed(mean['high'])}")
    if mean["undefined"]:
        below.append(f"{mean['undefined']} undefined")
    if control and control["mean"] is not None:
        below.append(f"control {signed(control['mean'])}")
    return {"mean": DASH if mean["mean"] is None else signed(mean["mean"]), "below": below}


def dictionary_charts(
    dictionaries: Sequence[Mapping[str, Any]], kinds: Sequence[Kind]
) -> list[dict[str, Any]]:
    """A chart for each kind: the mean of each dictionary with its interval, above its control."""
    charts = []
    for kind in kinds:
        means = [one.get(name) for one in dictionaries for name in (kind, f"{kind}_shuffled")]
        known = [m for m in means if m and m["mean"] is not None]
        if not known:
            continue
        low, ticks = axis_of([m["mean"] if m["low"] is None else m["low"] for m in known], NARROW)
        rows, bottom = [], 0.0
        for one in dictionaries:
            bottom += THIN
            bars = [
                _bar(one.get(name), low, bottom - 12 + shift, name != kind)
                for name, shift in ((kind, -4), (f"{kind}_shuffled", 4))
            ]
            bars = [bar for bar in bars if bar]
            rows.append(
                {"run": short_name(str(one["run"])), "y": f"{bottom - 8:.1f}", "bars": bars}
            )
        charts.append(
            {
                "kind": kind,
                "measure": MEASURE[kind],
                "control": CONTROL[kind],
                "rows": rows,
                "ticks": ticks,
                "chance": f"{across(CHANCE[kind], low, NARROW):.1f}",
                "bottom": f"{bottom:.0f}",
                "foot": f"{bottom + 18:.0f}",
                "height": f"{bottom + 36:.0f}",
            }
        )
    return charts


def _bar(
    mean: Mapping[str, Any] | None, low: float, y: float, shuffled: bool
) -> dict[str, Any] | None:
    if not mean or mean["mean"] is None:
        return None
    ends = (mean["mean"],) * 2 if mean["low"] is None else (mean["low"], mean["high"])
    return {
        "y": f"{y:.1f}",
        "x": f"{across(mean['mean'], low, NARROW):.1f}",
        "low": f"{across(ends[0], low, NARROW):.1f}",
        "high": f"{across(ends[1], low, NARROW):.1f}",
        "shuffled": shuffled,
        "title": f"{mean['mean']:.3f}, {ends[0]:.3f} to {ends[1]:.3f}",
    }


def short_name(run: str) -> str:
    """The name of a run without its digest."""
    head, _, tail = run.rpartition("-")
    return head if head and len(tail) == 12 else run


def moment_table(dictionaries: Sequence[Mapping[str, Any]], kinds: Sequence[Kind]) -> Any:
    """The rank correlations of each score with skew and with kurtosis."""
    rows = []
    for one in dictionaries:
        cells = []
        for kind in kinds:
            found = [one["rank_correlations"][f"{kind}_{name}"]["value"] for name in MOMENTS]
            shown = [DASH if value is None else signed(value) for value in found]
            cells.append(" / ".join(shown))
        rows.append({"run": one["run"], "cells": cells})
    return {"heads": list(kinds), "rows": rows}


def moment_chart(dictionaries: Sequence[Dictionary], kind: Kind) -> Markup:
    """The score of every latent against the skew of its activations."""
    series = []
    for one in dictionaries:
        pairs = [
            (latent.skew, latent.score(kind))
            for latent in one.latents
            if latent.skew is not None and not math.isnan(latent.score(kind))
        ]
        both = np.array(pairs, np.float64).reshape(-1, 2)
        series.append(Series(short_name(one.run), both[:, 0], both[:, 1], points=True))
    ticks = [(float(value), f"{value}") for value in (1, 2, 5, 10, 20, 50, 100)]
    return chart(series, Axis("skew", log=True, labels=ticks), Axis(f"{kind}: {MEASURE[kind]}"))
