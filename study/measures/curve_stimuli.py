"""Synthetic curves, drawn as the study of curve detectors in InceptionV1 drew them.

A curve is a rounded corner: an arc of 90 degrees and radius r, continued by its two straight
tangents. Small radii are corners, large ones almost straight lines. Its orientation is the
direction of its bulge in degrees, clockwise on the screen from +x (y points down).
Protocol: Cammarata et al., "Curve Detectors", Distill 2020.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from tendril.data.errors import ConfigError

STYLES = ("line", "edge", "reverse")
HALF_ANGLE = math.radians(45.0)
Number = int | float
TIGHTEST, STRAIGHTEST, RADII = 8.0, 128.0, 6


def direction(degrees: Number) -> tuple[float, float]:
    """(cos, sin) of an angle, such that 90 degrees more is exactly (-sin, cos)."""
    quarters, rest = divmod(degrees, 90.0)
    cos, sin = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    for _ in range(int(quarters) % 4):
        cos, sin = -sin, cos
    return cos, sin


def signed_distance(
    orientation: Number, radius: Number, size: int, centre: tuple[Number, Number]
) -> Float[np.ndarray, "h w"]:
    """Distance in pixels of every pixel's middle from the curve, negative on its hollow side.

    The midpoint of the arc lies on `centre` = (x, y), in pixel indices. With a along the bulge
    and b across it, both from the centre of the circle, the curve is symmetrical in b; where
    the point lies within 45 degrees of the bulge the nearest point is on the arc, so that
    d = |(a, b)| - r, and elsewhere on a tangent, d = (a + |b|) / sqrt(2) - r.
    """
    cos, sin = direction(orientation)
    x_W = np.arange(size, dtype=np.float64)[None, :] - centre[0]
    y_H = np.arange(size, dtype=np.float64)[:, None] - centre[1]
    along_HW = x_W * cos + y_H * sin + radius
    across_HW = np.abs(y_H * cos - x_W * sin)
    to_arc_HW = np.sqrt(along_HW**2 + across_HW**2) - radius
    to_tangent_HW = (along_HW + across_HW) * math.cos(HALF_ANGLE) - radius
    return np.where(across_HW <= along_HW, to_arc_HW, to_tangent_HW)


def draw_curve(
    orientation: Number,
    radius: Number,
    style: str,
    size: int,
    centre: tuple[Number, Number],
    *,
    line_width: Number = 2.0,
) -> Float32[np.ndarray, "h w"]:
    """One curve as grey levels in 0..1, dark on white, antialiased over one pixel.

    `line` is a stroke of `line_width` pixels along the curve; `edge` is dark all over the
    hollow side, and `reverse` all over the other: of an edge of one polarity alone, a unit that
    only tells dark from light, curved or not, would seem to prefer a direction.
    With d the signed distance, the ink on a pixel is what of its width it covers: 1/2 - d for
    the edge, 1/2 + d for its reverse, (line_width + 1)/2 - |d| for the line, all cut to 0..1.
    Turning by 90 degrees about `centre` permutes the pixels exactly.
    Raises ConfigError for another style or a negative radius.
    """
    if style not in STYLES:
        raise ConfigError(f"a curve's style must be one of {', '.join(STYLES)}; got {style!r}.")
    if not (radius >= 0 and line_width > 0):
        raise ConfigError(
            "a curve must have a radius of at least 0 and a line width above 0 pixels; got "
            f"{radius} and {line_width}."
        )
    distance_HW = signed_distance(orientation, radius, size, centre)
    if style == "line":
        ink_HW = (line_width + 1.0) / 2.0 - np.abs(distance_HW)
    else:
        ink_HW = 0.5 - distance_HW if style == "edge" else 0.5 + distance_HW
    most = min(1.0, line_width) if style == "line" else 1.0
    grey_HW: Float32[np.ndarray, "h w"] = (1.0 - np.clip(ink_HW, 0.0, most)).astype(np.float32)
    return grey_HW


@dataclass(frozen=True)
class Curve:
    """One stimulus of a grid: degrees, pixels, and one of STYLES."""

    orientation: float
    radius: float
    style: str


@dataclass(frozen=True)
class CurveGrid:
    """Every combination of orientations (degrees), radii (pixels) and styles.

    The order is that of `shape`: style slowest, then radius, orientation fastest, so that
    responses to the images in order reshape to it. Radii are geometric and suit receptive fields
    of about 90 pixels.
    """

    orientations: tuple[float, ...] = tuple(5.0 * i for i in range(72))
    radii: tuple[float, ...] = tuple(float(r) for r in np.geomspace(TIGHTEST, STRAIGHTEST, RADII))
    styles: tuple[str, ...] = STYLES
    line_width: float = 2.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Counts of (styles, radii, orientations)."""
        return len(self.styles), len(self.radii), len(self.orientations)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, index: int) -> Curve:
        style, radius, orientation = np.unravel_index(index, self.shape)
        return Curve(self.orientations[orientation], self.radii[radius], self.styles[style])


def curve_images(
    grid: CurveGrid, size: int, centre: tuple[Number, Number], batch_size: int = 64
) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """The grid's curves in its order, as batches of float32 RGB in 0..1, [B, 3, size, size]."""
    for start in range(0, len(grid), batch_size):
        curves = [grid[i] for i in range(start, min(start + batch_size, len(grid)))]
        grey_BHW = np.stack(
            [
                draw_curve(
                    c.orientation, c.radius, c.style, size, centre, line_width=grid.line_width
                )
                for c in curves
            ]
        )
        yield torch.from_numpy(grey_BHW)[:, None].repeat(1, 3, 1, 1)
