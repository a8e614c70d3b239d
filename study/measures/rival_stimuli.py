"""Drawn shapes that a curve detector must not prefer to curves.

A detector of corners, edges, line ends, circles or gratings may respond to curves as well, with one
preferred orientation and no echo. A unit is therefore shown these *rivals*, and its greatest
response to each kind is compared with its greatest response to a curve.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from .curve_stimuli import STYLES, CurveGrid, Number, direction, draw_curve

RIVALS = ("corner", "edge", "line", "line end", "circle", "grating")
STRAIGHT = 1e6
"""Radius in pixels of straight lines and edges: they bend by less than 0.01 pixels."""
PERIODS = (8.0, 16.0, 32.0)
"""Periods of gratings in pixels, for the radii that suit a receptive field of 91 pixels."""
FINEST = 4.0
"""Shortest period in pixels; pixels cannot show one below 2."""
PHASES = (0.0, 90.0)


@final
@dataclass(frozen=True)
class Rival:
    """One stimulus: a kind of RIVALS, its direction in degrees, a style and a size in pixels.

    The direction is that of a corner's tip and of a line's end. For an edge it points away from the
    dark side, for a line it is perpendicular, and a grating varies along it. The style is that of
    the curve that a corner, a line, an edge or a circle is drawn as; of a grating, its phase in
    degrees. The size is the radius of a circle and the period of a grating.
    """

    kind: str
    degrees: float
    style: str = "line"
    size: float = 0.0

    def draw(
        self, size: int, centre: tuple[Number, Number], line_width: Number
    ) -> Float32[np.ndarray, "h w"]:
        """Grey levels from 0 to 1 [size, size], dark on white, its middle on `centre` = (x, y)."""
        if self.kind == "line end":
            return _line_end(self.degrees, size, centre, line_width)
        if self.kind == "circle":
            return _circle(self.size, self.style, size, centre, line_width)
        if self.kind == "grating":
            return _grating(self.degrees, self.size, float(self.style), size, centre)
        radius = 0.0 if self.kind == "corner" else STRAIGHT
        return draw_curve(self.degrees, radius, self.style, size, centre, line_width=line_width)


def rivals_of(grid: CurveGrid) -> tuple[Rival, ...]:
    """The rivals of a grid of curves, in its orientations; circles have its radii.

    Lines and gratings look the same after half a turn, and circles after any, so each is drawn
    once.
    """
    every = grid.orientations
    half = [angle for angle in every if angle < 180]
    scale = max(grid.radii) / max(CurveGrid().radii)
    periods = dict.fromkeys(max(round(period * scale, 2), FINEST) for period in PERIODS)
    return (
        *(Rival("corner", a, style) for style in STYLES for a in every),
        *(Rival("edge", a, "edge") for a in every),
        *(Rival("line", a) for a in half),
        *(Rival("line end", a) for a in every),
        *(Rival("circle", 0.0, style, r) for style in STYLES for r in grid.radii if r > 0),
        *(
            Rival("grating", a, f"{phase:g}", period)
            for period in periods
            for phase in PHASES
            for a in half
        ),
    )


def rival_images(
    shapes: Sequence[Rival],
    size: int,
    centre: tuple[Number, Number],
    line_width: Number,
    batch_size: int,
) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """The shapes in their order, as batches of float32 RGB from 0 to 1, [B, 3, size, size]."""
    for start in range(0, len(shapes), batch_size):
        some = shapes[start : start + batch_size]
        grey_BHW = np.stack([shape.draw(size, centre, line_width) for shape in some])
        yield torch.from_numpy(grey_BHW)[:, None].repeat(1, 3, 1, 1)


@final
@dataclass(frozen=True)
class RivalResponses:
    """The responses [V, D] of D units or latents to V rivals."""

    shapes: tuple[Rival, ...]
    values_VD: Float[np.ndarray, "v d"]

    def best(self) -> Float[np.ndarray, "k d"]:
        """The greatest positive response to each kind of RIVALS."""
        kinds = np.array([shape.kind for shape in self.shapes])
        return np.stack(
            [np.maximum(self.values_VD[kinds == kind], 0).max(axis=0) for kind in RIVALS]
        )


def _line_end(
    degrees: Number, size: int, centre: tuple[Number, Number], line_width: Number
) -> Float32[np.ndarray, "h w"]:
    """A stroke that ends on the centre and points in that direction."""
    along_HW, across_HW = _axes(degrees, size, centre)
    ink_HW = np.clip((line_width + 1) / 2 - np.abs(across_HW), 0, min(1.0, line_width))
    return np.asarray(1 - ink_HW * np.clip(0.5 - along_HW, 0, 1), np.float32)


def _circle(
    radius: float, style: str, size: int, centre: tuple[Number, Number], line_width: Number
) -> Float32[np.ndarray, "h w"]:
    """A ring, a dark disc (`edge`) or a white disc on black (`reverse`) about the centre."""
    distance_HW = np.hypot(*_axes(0.0, size, centre)) - radius
    if style == "line":
        ink_HW = np.clip((line_width + 1) / 2 - np.abs(distance_HW), 0, min(1.0, line_width))
    else:
        ink_HW = np.clip(0.5 - distance_HW if style == "edge" else 0.5 + distance_HW, 0, 1)
    return np.asarray(1 - ink_HW, np.float32)


def _grating(
    degrees: Number, period: float, phase: float, size: int, centre: tuple[Number, Number]
) -> Float32[np.ndarray, "h w"]:
    """(1 + cos(2 pi u / period + phase)) / 2, where u is the distance along the direction."""
    along_HW, _ = _axes(degrees, size, centre)
    wave_HW = np.cos(2 * math.pi * along_HW / period + math.radians(phase))
    return np.asarray((1 + wave_HW) / 2, np.float32)


def _axes(
    degrees: Number, size: int, centre: tuple[Number, Number]
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """For every pixel, its distance from the centre along a direction and across it."""
    cos, sin = direction(degrees)
    x_1W = np.arange(size, dtype=np.float64)[None, :] - centre[0]
    y_H1 = np.arange(size, dtype=np.float64)[:, None] - centre[1]
    return x_1W * cos + y_H1 * sin, y_H1 * cos - x_1W * sin
