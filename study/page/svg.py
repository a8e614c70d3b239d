"""SVG paths and small pictures for pages.

SVG measures angles as the project does, clockwise with y down, so an orientation needs no
conversion. One colour stands for one orientation everywhere: the hue in OKLCH is the angle.
"""

import base64
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

HALF_ANGLE = math.radians(45)  # of a drawn curve, whose arc has 90 degrees
LIGHTNESS, CHROMA = 0.68, 0.14


def point(degrees: float, radius: float) -> tuple[float, float]:
    """The point at that angle and distance from the origin."""
    return radius * math.cos(math.radians(degrees)), radius * math.sin(math.radians(degrees))


def line_path(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """An SVG path through the points, to a tenth of a unit."""
    body = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f"M{body}Z" if closed else f"M{body}"


def polar_path(values: Float[np.ndarray, " a"], radius: float) -> str:
    """A tuning curve wrapped round the origin; a value of 1 lies at `radius`."""
    step = 360 / len(values)
    return line_path((point(i * step, radius * v) for i, v in enumerate(values)), closed=True)


def arc_path(start: float, end: float, radius: float) -> str:
    """An arc about the origin, clockwise from one angle to another."""
    (x0, y0), (x1, y1) = point(start, radius), point(end, radius)
    far = int((end - start) % 360 > 180)
    return f"M{x0:.1f} {y0:.1f}A{radius:g} {radius:g} 0 {far} 1 {x1:.1f} {y1:.1f}"


def wedge_path(start: float, end: float, radius: float) -> str:
    """A slice of a disc about the origin."""
    return f"{arc_path(start, end, radius)}L0 0Z"


def curve_path(radius: float, reach: float) -> str:
    """The synthetic curve that bulges to +x with the middle of its arc at the origin.

    An arc of 90 degrees and its two tangents, each `reach` long; turn it with `rotate`.
    """
    cos, sin = math.cos(HALF_ANGLE), math.sin(HALF_ANGLE)
    x, y = radius * (cos - 1), radius * sin
    far_x, far_y = x - reach * sin, y + reach * cos
    return (
        f"M{far_x:.1f} {-far_y:.1f}L{x:.1f} {-y:.1f}"
        f"A{radius:.1f} {radius:.1f} 0 0 1 {x:.1f} {y:.1f}L{far_x:.1f} {far_y:.1f}"
    )


def label_levels(orientations: Sequence[float], apart: float, levels: int) -> list[int | None]:
    """For labels round a circle in ascending order: the nearest ring with room, else None."""
    last: list[float] = [-math.inf] * levels
    first: list[float] = [math.inf] * levels
    chosen: list[int | None] = []
    for angle in orientations:
        free = (
            level
            for level in range(levels)
            if angle - last[level] >= apart and first[level] + 360 - angle >= apart
        )
        level = next(free, None)
        chosen.append(level)
        if level is not None:
            last[level] = angle
            first[level] = min(first[level], angle)
    return chosen


def hue_colour(degrees: float) -> tuple[int, int, int]:
    """sRGB of the hue that stands for an orientation, by the equations of OKLCH (Ottosson)."""
    a, b = CHROMA * math.cos(math.radians(degrees)), CHROMA * math.sin(math.radians(degrees))
    long = (LIGHTNESS + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (LIGHTNESS - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (LIGHTNESS - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    red, green, blue = (round(255 * _gamma(min(max(value, 0.0), 1.0))) for value in linear)
    return red, green, blue


def heat_map(values: Float[np.ndarray, "q a"], hue: float) -> str:
    """A data URL of a PNG, one pixel a value in 0..1: the hue, as opaque as the value is high."""
    picture = np.empty((*values.shape, 4), dtype=np.uint8)
    picture[..., :3] = hue_colour(hue)
    picture[..., 3] = np.round(255 * np.clip(values, 0, 1))
    return data_url(picture, "PNG")


def data_url(pixels: UInt8[np.ndarray, "h w c"], kind: str, largest: int | None = None) -> str:
    """The picture as a data URL, PNG or JPEG, no side longer than `largest` pixels."""
    picture = Image.fromarray(pixels)
    if largest is not None and max(picture.size) > largest:
        picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 82} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
