"""Line and scatter charts as SVG text, for pages that need nothing else to be looked at."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

WIDTH, HEIGHT = 460.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 40.0
MOST_POINTS = 400
HUES = (255, 35, 145, 320, 90, 200, 0, 285)


@dataclass(frozen=True)
class Series:
    """One line of a chart, or one cloud of points; what is not finite is left out, and so is
    what a logarithmic axis cannot show."""

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    points: bool = False


@dataclass(frozen=True)
class Axis:
    """What an axis is called, and whether equal steps on it are equal factors."""

    name: str
    log: bool = False

    def place(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Values as they are measured along the axis; NaN where it cannot show them."""
        values = np.asarray(values, dtype=float)
        if not self.log:
            return values
        return np.log10(np.where(values > 0, values, np.nan))

    def ticks(self, low: float, high: float) -> list[tuple[float, str]]:
        """Places along the axis and what is written there."""
        if self.log and high - low >= 1:
            step = max(1, math.ceil((high - low) / 6))
            whole = range(math.ceil(low), math.floor(high) + 1, step)
            return [(float(e), f"{10.0**e:g}") for e in whole]
        size = _round_step((high - low) / 6)
        places = size * np.arange(math.ceil(low / size), math.floor(high / size) + 1)
        return [(float(p), f"{10**p if self.log else p:.3g}") for p in places]


def chart(series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> str:
    """An SVG of all series on the same axes, with a legend where there are several."""
    placed = [_placed(one, x_axis, y_axis) for one in series]
    (x_low, x_high), (y_low, y_high) = (
        _span(np.concatenate([part[i] for part in placed]) if placed else np.zeros(0))
        for i in (0, 1)
    )

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - x_low) / (x_high - x_low)

    def down(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (y_high - y) / (y_high - y_low)

    parts = _frame(
        [(across(p), text) for p, text in x_axis.ticks(x_low, x_high)],
        [(down(p), text) for p, text in y_axis.ticks(y_low, y_high)],
        x_axis.name,
        y_axis.name,
    )
    for number, (one, (x, y)) in enumerate(zip(series, placed, strict=True)):
        points = [(across(a), down(b)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        parts.append(_drawn(one, points, HUES[number % len(HUES)]))
    if len(series) > 1:
        parts += [_legend(one.name, number) for number, one in enumerate(series)]
    label = html.escape(f"{y_axis.name} against {x_axis.name}")
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _placed(one: Series, x_axis: Axis, y_axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    x, y = x_axis.place(one.x), y_axis.place(one.y)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) > MOST_POINTS:
        keep = np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int)
        x, y = x[keep], y[keep]
    return x, y


def _span(values: np.ndarray) -> tuple[float, float]:
    """The range that an axis shows: the values' own, and never an empty one."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def _round_step(about: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten at or above."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * size for size in (1, 2, 5, 10) if power * size >= about * 0.999)


def _frame(
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_name: str,
    y_name: str,
) -> list[str]:
    """Grid, ticks and names of both axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="axis" d="M{LEFT:g} {TOP:g}V{bottom:g}H{right:g}"/>']
    for x, text in x_ticks:
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom:g}v4"/>')
        parts.append(f'<text class="soft mid" x="{x:.1f}" y="{bottom + 16:g}">{text}</text>')
    for y, text in y_ticks:
        parts.append(f'<path class="axis" d="M{LEFT:g} {y:.1f}H{right:g}"/>')
        parts.append(f'<text class="soft end" x="{LEFT - 6:g}" y="{y + 4:.1f}">{text}</text>')
    middle = (LEFT + right) / 2
    parts.append(
        f'<text class="mid" x="{middle:g}" y="{HEIGHT - 6:g}">{html.escape(x_name)}</text>'
    )
    parts.append(
        f'<text class="mid" transform="translate(12 {(TOP + bottom) / 2:g}) rotate(-90)">'
        f"{html.escape(y_name)}</text>"
    )
    return parts


def _drawn(one: Series, points: Sequence[tuple[float, float]], hue: int) -> str:
    title = f"<title>{html.escape(one.name)}</title>"
    if one.points:
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points)
        return f'<g class="fill" style="--h:{hue}">{title}{dots}</g>'
    if not points:
        return ""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="line" style="--h:{hue}" d="M{path}">{title}</path>'


def _legend(name: str, number: int) -> str:
    y = TOP + 12 + 15 * number
    x = WIDTH - RIGHT - 8
    return (
        f'<circle class="fill" style="--h:{HUES[number % len(HUES)]}" cx="{x:g}" cy="{y - 4:g}" '
        f'r="4"/><text class="soft end" x="{x - 9:g}" y="{y:g}">{html.escape(name)}</text>'
    )
