"""Generated images without files: dead leaves, drawn from a seed.

Opaque shapes of many sizes are drawn over one another: discs, polygons, curved strokes and lines.
With radii distributed as r^-3 an image is scale-invariant above the smallest shape, and its power
spectrum falls about as 1/f^2, as that of photographs does. Edges, lines, corners and arcs have
uniformly distributed orientations, and arcs have many curvatures. Model: Lee, Mumford & Huang,
"Occlusion models for natural images", IJCV 2001.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from ..errors import ConfigError

Kind = Literal["disc", "polygon", "stroke", "line"]
KINDS: tuple[Kind, ...] = ("disc", "polygon", "stroke", "line")
VERSION = 1  # of the images, part of their identity; to be raised if they change
FRACTIONS = (0.40, 0.20, 0.30, 0.10)  # of the kinds of shapes
COVERAGE = 2.5  # area of the shapes over that of the image, which leaves some background
SMALLEST = 8.0  # radius in pixels
LARGEST = 0.45  # radius over the side of the image
OVERSAMPLING = 2  # images are drawn larger and averaged, since PIL does not antialias

# Luminance has most of the variance of natural colours, then blue-yellow, then red-green.
OPPONENT = np.array([[1.0, 1.0, 1.0], [0.5, 0.3, -1.0], [0.6, -0.5, 0.0]])
SPREAD = np.array([0.26, 0.10, 0.06])

Points = list[tuple[float, float]]


def dead_leaves(seed: int, index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Image `index` of the series `seed`: RGB, size x size pixels.

    A pure function of its arguments. The sizes of shapes are in pixels, so that a larger image has
    more shapes instead of larger ones. Raises ConfigError for a negative seed or index, and for a
    size below 16 pixels.
    """
    if seed < 0 or index < 0 or size < 16:
        raise ConfigError(
            "a generated image must have a seed and an index of at least 0 and a side of at least "
            f"16 pixels; got seed {seed}, index {index}, side {size}."
        )
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index))))
    radii = _radii(rng, size)
    kinds = rng.choice(len(KINDS), size=len(radii), p=FRACTIONS)
    middles = rng.uniform(-0.1 * size, 1.1 * size, (len(radii), 2))
    colours = _colours(rng, len(radii) + 1)
    canvas = Image.new("RGB", (OVERSAMPLING * size, OVERSAMPLING * size), colours[-1])
    draw = ImageDraw.Draw(canvas)
    for kind, radius, middle, colour in zip(kinds, radii, middles, colours, strict=False):
        _draw_shape(draw, rng, KINDS[kind], radius, middle, colour)
    return np.array(canvas.reduce(OVERSAMPLING))


def _radii(rng: np.random.Generator, size: int) -> Float[np.ndarray, " n"]:
    """Radii in pixels with density r^-3, enough to cover the image COVERAGE times."""
    smallest, largest = SMALLEST, max(LARGEST * size, 2 * SMALLEST)
    mean_square = 2 * np.log(largest / smallest) / (smallest**-2 - largest**-2)
    solid = FRACTIONS[0] + 0.5 * FRACTIONS[1]  # a polygon covers about half of its circle
    count = COVERAGE * (1.2 * size) ** 2 / (solid * np.pi * mean_square)
    u = rng.random(int(np.ceil(count)))
    return (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5


def _colours(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """Random colours about a random mean, as levels from 0 to 255."""
    mean = 0.5 + (rng.normal(size=3) * SPREAD * 0.4) @ OPPONENT
    rgb = mean + (rng.normal(size=(count, 3)) * SPREAD) @ OPPONENT
    levels = np.rint(255 * np.clip(rgb, 0, 1)).astype(int).tolist()
    return [(red, green, blue) for red, green, blue in levels]


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    kind: Kind,
    radius: float,
    middle: Float[np.ndarray, "2"],
    colour: tuple[int, int, int],
) -> None:
    """Draw one shape of about `radius` pixels about `middle` = (x, y)."""
    x, y = OVERSAMPLING * middle
    turn = rng.uniform(0, 2 * np.pi)
    if kind == "disc":
        r = OVERSAMPLING * radius
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif kind == "polygon":
        corners = int(rng.integers(3, 7))
        angles = turn + 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
        draw.polygon(_around(x, y, OVERSAMPLING * radius, angles), fill=colour)
    else:
        bend = 0.0 if kind == "line" else rng.uniform(0.3, 5.0)
        width = OVERSAMPLING * min(float(np.exp(rng.uniform(0.0, 1.8))), 0.5 * radius)
        draw.line(
            _stroke(x, y, OVERSAMPLING * radius, bend, turn),
            fill=colour,
            width=max(1, round(width)),
            joint="curve" if bend else None,
        )


def _around(x: float, y: float, radius: float, angles: Float[np.ndarray, " n"]) -> Points:
    """The points of a circle at the given angles in radians."""
    return list(
        zip(
            (x + radius * np.cos(angles)).tolist(),
            (y + radius * np.sin(angles)).tolist(),
            strict=True,
        )
    )


def _stroke(x: float, y: float, reach: float, bend: float, turn: float) -> Points:
    """A stroke through (x, y) of length 4 `reach` that bends by `bend` radians."""
    if bend == 0.0:
        dx, dy = 2 * reach * np.cos(turn), 2 * reach * np.sin(turn)
        return [(x - dx, y - dy), (x + dx, y + dy)]
    radius = 4 * reach / bend
    angles = turn + np.linspace(-bend / 2, bend / 2, max(4, round(8 * bend)))
    return _around(x - radius * np.cos(turn), y - radius * np.sin(turn), radius, angles)
