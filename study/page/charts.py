"""Charts of lines and points, as SVG that needs no other file."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from .svg import line_path

WIDTH, HEIGHT = 640.0, 300.0
MOST_POINTS, FEW = 400, 40
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
HUES = (250, 30, 145, 320, 85, 200, 0, 285)


@final
@dataclass(frozen=True)
class Series:
    """One line of a chart, or one cloud of points.

    Values that are not finite are left out, and so are those that a logarithmic axis cannot show.
    `colour` numbers HUES; by default the series' place in the chart.
    """

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    points: bool = False
    dashed: bool = False
    colour: int | None = None


@final
@dataclass(frozen=True)
class Axis:
    """An axis: its name, whether it is logarithmic, and whether it begins at zero.

    `labels` are (value, text); by default round numbers.
    """

    name: str
    log: bool = False
    from_zero: bool = False
    labels: Sequence[tuple[float, str]] = ()

    def place(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Values as they are measured along the axis; NaN where it cannot show them."""
        values = np.asarray(values, dtype=float)
        if not self.log:
            return values
        return np.log10(np.where(values > 0, values, np.nan))

    def span(self, values: Float[np.ndarray, " n"]) -> tuple[float, float]:
        """The range that the axis shows; never an empty one."""
        if not len(values):
            return 0.0, 1.0
        low, high = float(values.min()), float(values.max())
        if self.from_zero:
            return 0.0, high or 1.0
        room = 0.04 * (high - low) or 0.5
        return low - room, high + room

    def ticks(self, low: float, high: float) -> list[tuple[float, str]]:
        """Places along the axis and what is written there."""
        if self.labels:
            shown = [(float(self.place(np.array([v]))[0]), text) for v, text in self.labels]
            return [(place, text) for place, text in shown if low <= place <= high]
        if self.log and high - low >= 1:
            step = max(1, math.ceil((high - low) / 6))
            whole = range(math.ceil(low), math.floor(high) + 1, step)
            return [(float(e), power_of_ten(e)) for e in whole]
        size = round_step((high - low) / 6)
        places = size * np.arange(math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9) + 1)
        return [(float(p), f"{10**p if self.log else p:.3g}") for p in places]


def chart(series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> Markup:
    """A figure of all series on the same axes, as SVG, with a legend where there are several."""
    placed = [_placed(one, x_axis, y_axis) for one in series]
    (x_low, x_high), (y_low, y_high) = (
        axis.span(np.concatenate([part[i] for part in placed]) if placed else np.zeros(0))
        for i, axis in enumerate((x_axis, y_axis))
    )

    def across(x: float) -> float:
        return WIDTH * (x - x_low) / (x_high - x_low)

    def down(y: float) -> float:
        return HEIGHT * (y_high - y) / (y_high - y_low)

    drawn = []
    for number, (one, (x, y)) in enumerate(zip(series, placed, strict=True)):
        points = [(across(a), down(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        drawn.append(_drawn(one, points, _hue(one, number)))
    frame = _frame(
        [(across(p), text) for p, text in x_axis.ticks(x_low, x_high)],
        [(down(p), text) for p, text in y_axis.ticks(y_low, y_high)],
        x_axis.name,
        y_axis.name,
    )
    label = html.escape(f"{y_axis.name} against {x_axis.name}")
    legend = "".join(_legend(one, _hue(one, i)) for i, one in enumerate(series))
    caption = f'<figcaption class="legend">{legend}</figcaption>' if len(series) > 1 else ""
    return Markup(
        f'<figure class="lines"><svg viewBox="-64 -12 720 366" role="img" aria-label="{label}">'
        f"{''.join(frame + drawn)}</svg>{caption}</figure>"
    )


def _hue(one: Series, number: int) -> int:
    return HUES[(number if one.colour is None else one.colour) % len(HUES)]


def _placed(one: Series, x_axis: Axis, y_axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    x, y = x_axis.place(one.x), y_axis.place(one.y)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) > MOST_POINTS:
        keep = np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int)
        x, y = x[keep], y[keep]
    return x, y


def _frame(
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_name: str,
    y_name: str,
) -> list[str]:
    """Grid, ticks and names of both axes."""
    parts = [f'<path class="axis" d="M0 0V{HEIGHT:g}H{WIDTH:g}"/>']
    for x, text in x_ticks:
        parts.append(f'<path class="axis" d="M{x:.1f} {HEIGHT:g}v5"/>')
        parts.append(f'<text class="soft mid" x="{x:.1f}" y="{HEIGHT + 19:g}">{text}</text>')
    for y, text in y_ticks:
        parts.append(f'<path class="axis" d="M0 {y:.1f}H{WIDTH:g}"/>')
        parts.append(f'<text class="soft end" x="-8" y="{y + 4:.1f}">{text}</text>')
    parts.append(
        f'<text class="mid" x="{WIDTH / 2:g}" y="{HEIGHT + 44:g}">{html.escape(x_name)}</text>'
    )
    parts.append(
        f'<text class="mid" transform="translate(-50 {HEIGHT / 2:g}) rotate(-90)">'
        f"{html.escape(y_name)}</text>"
    )
    return parts


def _drawn(one: Series, points: Sequence[tuple[float, float]], hue: int) -> str:
    title = f"<title>{html.escape(one.name)}</title>"
    dots = "".join(f'<circle class="fill" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points)
    inner = dots if one.points else f"{_line(one, points)}{dots if len(points) < FEW else ''}"
    return f'<g class="hue" style="--h:{hue}">{title}{inner}</g>'


def _line(one: Series, points: Sequence[tuple[float, float]]) -> str:
    dash = ' stroke-dasharray="5 4"' if one.dashed else ""
    path = line_path(points) if points else ""
    return f'<path class="stroke" stroke-width="2" stroke-linejoin="round"{dash} d="{path}"/>'


def _legend(one: Series, hue: int) -> str:
    dash = ' stroke-dasharray="5 4"' if one.dashed else ""
    mark = f'<path class="stroke" stroke-width="2.4"{dash} d="M0 5H26"/>'
    if one.points:
        mark = '<circle class="fill" cx="13" cy="5" r="4"/>'
    return (
        f'<span class="hue" style="--h:{hue}"><svg width="26" height="10" viewBox="0 0 26 10" '
        f'aria-hidden="true">{mark}</svg> {html.escape(one.name)}</span>'
    )


def power_of_ten(exponent: int) -> str:
    """10^exponent: written out from 0.001 to 1000, else as 10⁴."""
    if -3 <= exponent <= 3:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(RAISED)


def round_step(about: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * size for size in (1, 2, 5, 10) if power * size >= about * 0.999)
