"""The rules for the weights of the handmade subject.

Every rule is geometric: it says which feature, at which angle, is expected in which cell of a
kernel. Lines and Gabors are labelled by the angle of their normal, modulo 180 degrees; curves,
corners and edges by a direction modulo 360 (of the bulge, the tip, the light side). Angles are
degrees clockwise on screen from +x. Positions are in pixels. The cells of a kernel are one pitch
apart: 1 pixel in conv2d0, 4 in conv2d2, 8 in mixed3a and mixed3b. A block of weights is
[O, I, K, K]: output features, input features, rows, columns.
"""

import math

import numpy as np
from jaxtyping import Float

Array = np.ndarray
Block = Float[np.ndarray, "o i k k"]

GABOR_NORMALS = np.arange(0.0, 180.0, 15.0)
PHASES = np.arange(0.0, 360.0, 90.0)
NORMALS = np.arange(0.0, 180.0, 11.25)
DIRECTIONS = np.arange(0.0, 360.0, 22.5)
CORNERS = np.arange(0.0, 360.0, 45.0)
CIRCLES = (8.0, 12.0, 16.0, 20.0)  # radii in pixels
HUES = np.arange(0.0, 360.0, 45.0)

WHOLE, HALF = 360.0, 180.0  # periods of a direction and of a normal


def agreement(difference: Array | float, width: float, period: float) -> Array:
    """A von Mises bump: 1 if two angles agree, and 1/2 if they differ by width / 2."""
    fall = 1 - math.cos(math.pi * width / period)
    angle = 2 * np.pi * np.asarray(difference, dtype=np.float64) / period
    bump: Array = 0.5 ** ((1 - np.cos(angle)) / fall)
    return bump


def cells(side: int, pitch: float, direction: float) -> tuple[Array, Array]:
    """Position in pixels of each cell of a kernel along `direction` and across it (clockwise)."""
    reach = (np.arange(side) - (side - 1) / 2) * pitch
    x, y = np.meshgrid(reach, reach)
    cos, sin = math.cos(math.radians(direction)), math.sin(math.radians(direction))
    return x * cos + y * sin, y * cos - x * sin


def bell(distance: Array, sigma: float) -> Array:
    """exp(-(distance / sigma)^2 / 2), a Gaussian of height 1."""
    height: Array = np.exp(-0.5 * (distance / sigma) ** 2)
    return height


def lay(weight: Array, expected: Array, angles: Array, width: float, period: float) -> Array:
    """Weights [I, K, K] with sum 1 that prefer, in each cell, features at the expected angle."""
    block: Array = weight * agreement(angles[:, None, None] - expected, width, period)
    block /= block.sum()
    return block


# --- conv2d0: 7x7 pixels, stride 2 --------------------------------------------------------


def gabor_bank(wavelength: float = 5.5, along: float = 1.6, across: float = 2.2) -> Block:
    """Gabors at twelve orientations and four phases, on luminance.

    cos(2 pi u / wavelength - phase) under a Gaussian, with u along the normal. Weights have mean
    zero and absolute sum 1. Four phases are needed because a ReLU follows.
    """
    bank = []
    for normal in GABOR_NORMALS:
        u, v = cells(7, 1.0, normal)
        envelope = bell(u, along) * bell(v, across)
        for phase in PHASES:
            kernel = envelope * np.cos(2 * np.pi * u / wavelength - math.radians(phase))
            kernel -= envelope * kernel.sum() / envelope.sum()
            bank.append(np.repeat(kernel[None], 3, axis=0) / (3 * np.abs(kernel).sum()))
    return np.stack(bank)


def colour_blobs() -> Block:
    """Detectors of eight hues: first spots on the opposite hue, then uniform colour.

    A hue weights red, green and blue by its angle in the plane of the red-green and blue-yellow
    axes, so that grey excites none.
    """
    u, v = cells(7, 1.0, 0.0)
    distance = np.hypot(u, v)
    field, spot = bell(distance, 2.0), bell(distance, 1.0)
    profiles = (spot / spot.sum() - field / field.sum(), field / field.sum())
    hues = np.radians(HUES)
    red_green = np.array([1.0, -1.0, 0.0]) / 2
    blue_yellow = np.array([-0.5, -0.5, 1.0]) / 2
    colours = np.cos(hues)[:, None] * red_green + np.sin(hues)[:, None] * blue_yellow
    return np.concatenate([colours[:, :, None, None] * profile for profile in profiles])


# --- conv2d1: 1x1 -------------------------------------------------------------------------


def pooled_phases(width: float = 30.0, inhibition: float = 0.55) -> Block:
    """Energy at each normal: nearby Gabors in all four phases, minus a fraction of all Gabors."""
    match = agreement(NORMALS[:, None] - GABOR_NORMALS, width, HALF)
    weights = match / match.sum(axis=1, keepdims=True) - inhibition / len(GABOR_NORMALS)
    return np.repeat(weights, len(PHASES), axis=1)[:, :, None, None]


def pooled_edges(width: float = 40.0, inhibition: float = 0.55) -> Block:
    """Edges by direction of the light side: odd phases only, minus a fraction of all Gabors."""
    directions = GABOR_NORMALS[:, None] + np.array([0.0, 0.0, 0.0, 180.0])
    odd = np.array([0.0, 1.0, 0.0, 1.0])
    match = odd * agreement(DIRECTIONS[:, None, None] - directions, width, WHOLE)
    match /= match.sum(axis=(1, 2), keepdims=True)
    weights: Array = match - inhibition / match[0].size
    return weights.reshape(len(DIRECTIONS), -1, 1, 1)


# --- lines and curves, from conv2d2 on ----------------------------------------------------


def lines(side: int, pitch: float, breadth: float, normals: Array = NORMALS) -> Block:
    """Lines: aligned lines along the tangent, minus the mean over all normals and cells."""
    rows = []
    for normal in normals:
        u, _ = cells(side, pitch, normal)
        row = lay(bell(u, breadth), np.full_like(u, normal), NORMALS, 30.0, HALF)
        rows.append(row - 1.0 / row.size)
    return np.stack(rows)


def bends(side: int, pitch: float, turn: float, breadth: float, length: float) -> Block:
    """Early curves: lines along the tangent whose normals turn with the bulge, minus 1.1 times
    those that turn against it.

    Straight lines, and responses at 180 degrees from the bulge, cancel. `turn` is in degrees per
    cell.
    """
    rows = []
    for direction in DIRECTIONS:
        u, v = cells(side, pitch, direction)
        weight, turned = bell(u, breadth) * bell(v, length), turn * v / pitch
        toward = lay(weight, direction + turned, NORMALS, 40.0, HALF)
        against = lay(weight, direction - turned, NORMALS, 40.0, HALF)
        rows.append(toward - 1.1 * against)
    return np.stack(rows)


def edges(side: int, pitch: float, breadth: float) -> Block:
    """Edges: aligned edges along the tangent with the same light side."""
    rows = []
    for direction in DIRECTIONS:
        u, _ = cells(side, pitch, direction)
        row = lay(bell(u, breadth), np.full_like(u, direction), DIRECTIONS, 45.0, WHOLE)
        rows.append(row - 1.0 / row.size)
    return np.stack(rows)


# --- mixed3b_5x5: a kernel of 5x5 cells, 8 pixels apart -----------------------------------

SIDE, PITCH = 5, 8.0


def curves(
    directions: Array = DIRECTIONS,
    radii: tuple[float, ...] = (14.0, 20.0, 30.0, 50.0),
    breadth: float = 6.0,
    extent: float = 45.0,
    opposition: float = 1.5,
    inhibition: float = 1.0,
) -> Block:
    """Curve detectors: early curves tangent to arcs of several radii.

    In a cell at the angle `off` around the arc's centre, the early curve of direction + off
    excites, and the one 180 degrees away inhibits. All early curves inhibit weakly everywhere.
    """
    rows = []
    for direction in directions:
        u, v = cells(SIDE, PITCH, direction)
        row = np.full((len(DIRECTIONS), SIDE, SIDE), -inhibition / (len(DIRECTIONS) * SIDE**2))
        for radius in radii:
            off = np.degrees(np.arctan2(v, u + radius))
            weight = bell(np.hypot(u + radius, v) - radius, breadth) * (np.abs(off) <= extent)
            toward = lay(weight, direction + off, DIRECTIONS, 38.0, WHOLE)
            against = lay(weight, direction + off + 180.0, DIRECTIONS, 38.0, WHOLE)
            row += (toward - opposition * against) / len(radii)
        rows.append(row)
    return np.stack(rows)


def suppression(count: int, by: int) -> Block:
    """Uniform inhibition by `by` features in every cell; weights of each output sum to -1."""
    return np.full((count, by, SIDE, SIDE), -1.0 / (by * SIDE**2))


def corners(
    directions: Array = CORNERS,
    half_angle: float = 30.0,
    breadth: float = 4.0,
    inhibition: float = 2.0,
    beyond: float = 1.5,
    start: float = 5.0,
    width: float = 30.0,
) -> Block:
    """Corners: lines along two arms that run back from the tip at `half_angle` to the axis, in
    cells more than `start` pixels away.

    The same lines on the other side of the tip inhibit with weight `beyond`, so that straight
    lines and crossings do not excite.
    """
    rows = []
    for direction in directions:
        row = np.zeros((len(NORMALS), SIDE, SIDE))
        for arm in (direction + 180.0 - half_angle, direction + 180.0 + half_angle):
            u, v = cells(SIDE, PITCH, arm)
            normal = np.full_like(u, arm + 90.0)
            on_arm = lay(bell(v, breadth) * (u > start), normal, NORMALS, width, HALF)
            past_tip = lay(bell(v, breadth) * (u < -start), normal, NORMALS, width, HALF)
            row += (on_arm - beyond * past_tip) / 2
        rows.append(row - inhibition / row.size)
    return np.stack(rows)


def circles(
    radii: tuple[float, ...] = CIRCLES, breadth: float = 4.0, inhibition: float = 2.0
) -> Block:
    """Rings around the middle: early curves that bulge outward in cells near the ring."""
    rows = []
    for radius in radii:
        u, v = cells(SIDE, PITCH, 0.0)
        outward = np.degrees(np.arctan2(v, u))
        weight = bell(np.hypot(u, v) - radius, breadth) * (np.hypot(u, v) > 0)
        ring = lay(weight, outward, DIRECTIONS, 45.0, WHOLE)
        inward = lay(weight, outward + 180.0, DIRECTIONS, 45.0, WHOLE)
        rows.append(ring - inward - inhibition / ring.size)
    return np.stack(rows)
