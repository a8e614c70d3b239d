"""The front of a sweep as a picture: unexplained variance against active latents."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from tendril.data.store.atomic import write_whole

INK, SOFT, GRID = "#1d1f23", "#6b7078", "#e7e8ea"
# distinguishable also without red-green vision (after Okabe and Ito, 2008)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5539c", "#c28a00", "#3aa0d8", "#5a5f66")
MARKERS = "osD^v"
FLOOR = 1e-3  # of FVU: smaller values are drawn here
SHORT = 17  # letters of a curve's name, for which there is room beside wide axes


@final
@dataclass(frozen=True)
class Curve:
    """Points by increasing L0, each with its smallest and largest value over seeds."""

    name: str
    objective: str
    baseline: bool
    l0: list[float]
    l0_ranges: list[tuple[float, float]]
    fvu: list[float]
    fvu_ranges: list[tuple[float, float]]


def plot_front(path: Path, curves: Sequence[Curve], title: str) -> None:
    """Plot FVU against L0 on logarithmic axes; lower left is better. Each curve is a line with its
    name at the end, and a bar at each point from the smallest to the largest seed. Objectives
    differ in colour, sizes in markers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.6), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    longest = max((len(curve.name) for curve in curves), default=0)
    axes = figure.add_axes((0.095, 0.115, 0.70 if longest <= SHORT else 0.61, 0.77))
    _axes(axes)
    hues = list(dict.fromkeys(curve.objective for curve in curves if not curve.baseline))
    ends: list[tuple[float, float, str, str]] = []
    drawn: dict[str, int] = {}
    for curve in map(_raised, curves):
        colour = SOFT
        if not curve.baseline:
            colour = COLOURS[hues.index(curve.objective) % len(COLOURS)]
        group = "" if curve.baseline else curve.objective
        number = drawn[group] = drawn.get(group, -1) + 1
        _draw(axes, curve, colour, MARKERS[number % len(MARKERS)])
        ends.append((curve.l0[-1], curve.fvu[-1], curve.name, colour))
    _names(axes, ends)
    figure.text(0.095, 0.945, title, fontsize=13, color=INK, weight="bold")
    below = "median over seeds, bars from the smallest to the largest; lower left is better"
    if any(value < FLOOR for curve in curves for value in curve.fvu):
        below += f"; below {FLOOR:g} drawn there"
    figure.text(0.095, 0.905, below, fontsize=9, color=SOFT)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_whole(path, picture.getvalue())


def _raised(curve: Curve) -> Curve:
    """A curve whose points below FLOOR are raised to it, so that one point does not flatten the
    others."""
    return replace(
        curve,
        fvu=[max(value, FLOOR) for value in curve.fvu],
        fvu_ranges=[(max(low, FLOOR), max(high, FLOOR)) for low, high in curve.fvu_ranges],
    )


def _axes(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(xscale="log", yscale="log", xlim=(1, 100), ylim=(0.01, 1))  # if nothing is drawn
    axes.autoscale()
    for axis, name in ((axes.xaxis, "L0: active latents of a vector"), (axes.yaxis, "FVU")):
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(LogLocator(base=10, subs=()))
        axis.set_label_text(name, color=INK, fontsize=10)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=9, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side == "bottom")
        axes.spines[side].set_color(SOFT)


def _draw(axes: Any, curve: Curve, colour: str, marker: str) -> None:
    spread = {
        f"{across}err": [
            [value - low for value, (low, _) in zip(values, ranges, strict=True)],
            [high - value for value, (_, high) in zip(values, ranges, strict=True)],
        ]
        for across, values, ranges in (
            ("x", curve.l0, curve.l0_ranges),
            ("y", curve.fvu, curve.fvu_ranges),
        )
    }
    axes.errorbar(
        curve.l0,
        curve.fvu,
        **spread,
        color=colour,
        linestyle=(0, (4, 3)) if curve.baseline else "-",
        linewidth=1.4 if curve.baseline else 2,
        marker=marker,
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=1,
        elinewidth=1.2,
        capsize=3,
    )


def _names(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the name of each curve to the right of the axes, with a line from its end, so that no
    two overlap."""
    axes.figure.canvas.draw()
    transform = axes.transData + axes.transAxes.inverted()
    places: list[tuple[float, float, str, str]] = []
    for across, up, name, colour in ends:
        x, y = transform.transform((across, up))
        places.append((float(y), float(x), name, colour))
    places.sort()
    heights = spaced([place[0] for place in places], 0.05)
    for height, (up, across, name, colour) in zip(heights, places, strict=True):
        axes.plot(
            *((across + 0.012, 1.0, 1.015), (up, height, height)),
            transform=axes.transAxes,
            color=colour,
            linewidth=0.8,
            alpha=0.35,
            clip_on=False,
        )
        axes.text(
            *(1.02, height, name),
            transform=axes.transAxes,
            color=colour,
            fontsize=10,
            weight="bold",
            va="center",
        )


def spaced(heights: Sequence[float], least: float) -> list[float]:
    """Increasing heights, moved until they are at least `least` apart and at most 1."""
    moved = list(heights)
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + least)
    ceiling = 1.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - least
    return moved
