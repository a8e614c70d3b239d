"""Images that need no file: dead leaves, drawn from a seed.

Opaque shapes of all sizes fall on one another until the ground is covered: discs, polygons,
curved strokes and straight lines. With radii distributed as r^-3 the picture looks alike at
every scale above the smallest shape and its power spectrum falls about as 1/f^2, as that of
photographs does. Edges, lines,
corners and arcs come in all orientations alike, arcs in all curvatures.
Model: Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 2001.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from ..errors import ConfigError

Kind = Literal["disc", "polygon", "stroke", "line"]
KINDS: tuple[Kind, ...] = ("disc", "polygon", "stroke", "line")
VERSION = 1  # of the pictures: a change of what is drawn is another source of inputs
SHARES = (0.40, 0.20, 0.30, 0.10)
COVERAGE = 2.5  # area of the shapes over that of the picture: some of the ground still shows
SMALLEST = 8.0  # radius in pixels
LARGEST = 0.45  # radius over the picture's side
OVERSAMPLING = 2  # drawn larger and averaged down, for PIL draws without antialiasing

# Luminance carries most of the variance of natural colours, then blue-yellow, then red-green.
OPPONENT = np.array([[1.0, 1.0, 1.0], [0.5, 0.3, -1.0], [0.6, -0.5, 0.0]])
SPREAD = np.array([0.26, 0.10, 0.06])

Points = list[tuple[float, float]]


def dead_leaves(seed: int, index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Picture `index` of the series `seed`: RGB, size x size pixels.

    A pure function of its arguments. Shapes are measured in pixels, so that a larger picture
    shows more of them, not larger ones. Raises ConfigError for a negative seed or index, and
    for a side below 16 pixels.
    """
    if seed < 0 or index < 0 or size < 16:
        raise ConfigError(
            "A generated image has a seed and an index of at least 0 and a side of at least 16 "
            f"pixels, and not seed {seed}, index {index}, side {size}."
        )
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index))))
    radii = _radii(rng, size)
    kinds = rng.choice(len(KINDS), size=len(radii), p=SHARES)
    middles = rng.uniform(-0.1 * size, 1.1 * size, (len(radii), 2))
    colours = _colours(rng, len(radii) + 1)
    canvas = Image.new("RGB", (OVERSAMPLING * size, OVERSAMPLING * size), colours[-1])
    draw = ImageDraw.Draw(canvas)
    for kind, radius, middle, colour in zip(kinds, radii, middles, colours, strict=False):
        _draw_shape(draw, rng, KINDS[kind], radius, middle, colour)
    return np.array(canvas.reduce(OVERSAMPLING))


def _radii(rng: np.random.Generator, size: int) -> Float[np.ndarray, " n"]:
    """Radii in pixels with density r^-3, as many as cover the picture COVERAGE times."""
    smallest, largest = SMALLEST, max(LARGEST * size, 2 * SMALLEST)
    mean_square = 2 * np.log(largest / smallest) / (smallest**-2 - largest**-2)
    solid = SHARES[0] + 0.5 * SHARES[1]  # what polygons cover of their circle is about a half
    count = COVERAGE * (1.2 * size) ** 2 / (solid * np.pi * mean_square)
    u = rng.random(int(np.ceil(count)))
    return (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5


def _colours(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    """Colours about a mean of the picture's own, in levels 0..255."""
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
    """One shape of about `radius` pixels round `middle` = (x, y)."""
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
    """Points of the circle at the angles (radians)."""
    return list(
        zip(
            (x + radius * np.cos(angles)).tolist(),
            (y + radius * np.sin(angles)).tolist(),
            strict=True,
        )
    )


def _stroke(x: float, y: float, reach: float, bend: float, turn: float) -> Points:
    """A stroke through (x, y) of length 4 `reach` that turns by `bend` radians on its way."""
    if bend == 0.0:
        dx, dy = 2 * reach * np.cos(turn), 2 * reach * np.sin(turn)
        return [(x - dx, y - dy), (x + dx, y + dy)]
    radius = 4 * reach / bend
    angles = turn + np.linspace(-bend / 2, bend / 2, max(4, round(8 * bend)))
    return _around(x - radius * np.cos(turn), y - radius * np.sin(turn), radius, angles)
