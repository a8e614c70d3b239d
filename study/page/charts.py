"""Lines over a common pair of axes, as shapes for the template `lines.html`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from .svg import line_path

WIDTH, HEIGHT = 640.0, 300.0
HUES = (250, 30, 145, 320, 85, 200, 0, 285)


@final
@dataclass(frozen=True)
class Line:
    """A named line through points (x, y), in a colour of HUES by its number; `dashed` where it is
    for comparison."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


def line_chart(
    lines: Sequence[Line],
    x_name: str,
    y_name: str,
    ticks: Sequence[tuple[float, str]] = (),
) -> dict[str, Any]:
    """Shapes of a chart whose y begins at 0. `ticks` are (x, text); by default round numbers."""
    xs = [x for line in lines for x, _ in line.points] or [0.0]
    ys = [y for line in lines for _, y in line.points] or [0.0]
    left, right = min(xs), max(xs)
    top = max(*ys, 1e-9)
    across = WIDTH / ((right - left) or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - left) * across, HEIGHT * (1 - y / top)

    step = round_step(top / 5)
    heights = [i * step for i in range(math.floor(top / step + 1e-9) + 1)]
    return {
        "label": f"{y_name} against {x_name}",
        "x_name": x_name,
        "y_name": y_name,
        "x_ticks": [
            {"x": f"{place(x, 0.0)[0]:.1f}", "text": text}
            for x, text in ticks or _round_ticks(left, right)
        ],
        "y_ticks": [{"y": f"{place(left, y)[1]:.1f}", "text": f"{y:g}"} for y in heights],
        "lines": [
            {
                "name": line.name,
                "h": HUES[line.colour % len(HUES)],
                "dash": "5 4" if line.dashed else "none",
                "path": line_path(place(x, y) for x, y in line.points),
                "dots": [
                    {"x": f"{place(x, y)[0]:.1f}", "y": f"{place(x, y)[1]:.1f}", "text": f"{y:.3g}"}
                    for x, y in (line.points if len(line.points) < 40 else ())
                ],
            }
            for line in lines
            if line.points
        ],
    }


def round_step(about: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * size for size in (1, 2, 5, 10) if power * size >= about * 0.999)


def _round_ticks(left: float, right: float) -> list[tuple[float, str]]:
    step = round_step(max(right - left, 1e-9) / 8)
    first = math.ceil(left / step - 1e-9)
    return [(i * step, f"{i * step:g}") for i in range(first, math.floor(right / step + 1e-9) + 1)]
