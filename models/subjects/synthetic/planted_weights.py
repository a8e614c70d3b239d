"""The rules that plant more features than there are channels.

Three linear steps follow the handmade early curves and lines, with a ReLU after each: detectors
(5x5 cells), competition among them (1x1), and mixing into channels (1x1). Letters: F features, D
channels. Angles are as in `handmade_weights`; a hook is labelled by the direction of its bulge at
the beginning of its arc, and by its hand.
"""

import numpy as np
from jaxtyping import Float

from . import handmade_weights as rules
from .handmade_weights import Block

STEP = 15.0  # degrees between neighbours of a family; turns by STEP permute the features
DIRECTIONS = np.arange(0.0, 360.0, STEP)
NORMALS = np.arange(0.0, 180.0, STEP)
RADII = (12.0, 18.0)  # of circles, in pixels
HANDS = (1, -1)  # 1: the arc continues clockwise

SIZES = {"curve": 24, "line": 12, "corner": 24, "circle": 2, "hook": 48}
"""Number of features of each kind, in the order of their numbering."""

NEURONS = (0, 30, 60, 90, 120, 150, 180, 240, 270, 300)
"""Orientations of the curves that have a channel of their own."""
DOUBLES = ((45, 195), (105, 255), (165, 315))
"""Orientations of the curves that share a channel in pairs."""
POINTS = (0, 11, 8, 1, 9, 6, 12, 10, 15, 5, 2, 3, 14, 7)
"""Points of the other fourteen curves, in order of orientation.

Chosen by trying permutations, so that curves that share a channel have distant orientations
(resultant length at most 0.61)."""
DOUBLE = 0.3  # fraction of a curve's squared weights in the shared channel
TIMES = ((0, 0, 0, 0), (0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2))  # product in GF(4); the sum is ^
WIDTH = 96


def spans() -> dict[str, slice]:
    """The slice of feature numbers of each kind."""
    ends = np.cumsum(list(SIZES.values())).tolist()
    return {k: slice(end - n, end) for (k, n), end in zip(SIZES.items(), ends, strict=True)}


# --- detectors: 16 early curves and 16 lines in, 5x5 cells 8 pixels apart -------------------


def hooks(
    hand: int,
    radii: tuple[float, ...] = (14.0, 20.0, 30.0),
    breadth: float = 6.0,
    extent: float = 60.0,
    opposition: float = 1.5,
    directions: Float[np.ndarray, " n"] = DIRECTIONS,
) -> Block:
    """Hooks: arcs that begin in the middle and continue to one side only.

    On the side of the arc, weights are those of a curve detector; on the other side, early curves
    of the same and of the opposite bulge inhibit. No reflection maps a hook to itself.
    """
    rows = []
    for direction in directions:
        u, v = rules.cells(rules.SIDE, rules.PITCH, direction)
        v = hand * v
        row = np.full((len(rules.DIRECTIONS), *u.shape), -1 / (len(rules.DIRECTIONS) * u.size))
        blank = rules.bell(u, breadth) * (v < -rules.PITCH / 2)
        for bulge in (direction, direction + 180.0):
            row -= rules.lay(blank, np.full_like(u, bulge), rules.DIRECTIONS, 60.0, rules.WHOLE) / 2
        for radius in radii:
            off = np.degrees(np.arctan2(v, u + radius))
            arc = rules.bell(np.hypot(u + radius, v) - radius, breadth)
            weight, bulge = arc * (off > -1.0) * (off <= extent), direction + hand * off
            toward = rules.lay(weight, bulge, rules.DIRECTIONS, 38.0, rules.WHOLE)
            against = rules.lay(weight, bulge + 180.0, rules.DIRECTIONS, 38.0, rules.WHOLE)
            row += (toward - opposition * against) / len(radii)
        rows.append(row)
    return np.stack(rows)


def detectors() -> tuple[Block, Float[np.ndarray, " f"]]:
    """Weights [F, 32, 5, 5] and thresholds [F] of the detectors, before competition.

    The inputs are 16 early curves and 16 lines. Gains give the kinds similar magnitudes on dead
    leaves images, and thresholds make each detector silent at 19 of 20 positions.
    """
    lines = rules.lines(rules.SIDE, rules.PITCH, breadth=4.0, normals=NORMALS)
    corners = rules.corners(
        DIRECTIONS, half_angle=50.0, breadth=5.0, inhibition=1.0, beyond=0.7, start=2.0, width=35.0
    )
    parts = [  # block, first input channel, gain, threshold
        (rules.curves(DIRECTIONS), 0, 0.167, 4.85),
        (lines, 16, 0.27, 0.0),
        (corners, 16, 0.44, 3.15),
        (rules.circles(RADII), 0, 0.15, 4.7),
        *((hooks(hand), 0, 0.158, 3.5) for hand in HANDS),
    ]
    total = sum(SIZES.values())
    weights = np.zeros((total, 2 * len(rules.DIRECTIONS), rules.SIDE, rules.SIDE))
    thresholds, done = np.zeros(total), 0
    for block, first, gain, threshold in parts:
        rows, ins = slice(done, done + len(block)), slice(first, first + block.shape[1])
        weights[rows, ins], thresholds[rows] = gain * block, gain * threshold
        done = rows.stop
    straight = spans()["line"]
    weights[straight, :16] += 0.27 * rules.suppression(SIZES["line"], by=16)
    return weights, thresholds


# --- competition -----------------------------------------------------------------------------

# inhibition by neighbours in the same family, one and two steps away, and by other families
WITHIN = {"curve": (0.15, 0.7), "line": (0.3, 0.5), "corner": (0.3, 0.6), "hook": (0.2, 0.6)}
ACROSS = {
    ("hook", "curve"): 0.1,
    ("curve", "hook"): 0.1,
    ("line", "corner"): 0.2,
    ("corner", "curve"): 0.1,
    ("corner", "hook"): 0.1,
    ("curve", "circle"): 0.3,
    ("line", "circle"): 0.3,
    ("hook", "circle"): 0.3,
}
LEAST = 0.15
GAINS = {"curve": 24.0, "line": 14.5, "corner": 14.0, "circle": 15.0, "hook": 24.0}


def competition() -> tuple[Float[np.ndarray, "f f"], Float[np.ndarray, " f"]]:
    """Weights [F, F] and thresholds [F]: each feature minus its neighbours and rivals.

    This makes tuning so narrow, at any contrast, that a curve at a planted orientation excites no
    neighbouring feature. All members of a family are inhibited equally, so that group elements
    that permute the detectors also permute the features. Gains equalise the magnitudes of kinds.
    """
    span, total = spans(), sum(SIZES.values())
    matrix, thresholds = np.eye(total), np.zeros(total)
    rings = [(kind, span[kind]) for kind in SIZES if kind not in ("hook", "circle")]
    hook = span["hook"]
    middle = hook.start + len(DIRECTIONS)
    rings += [("hook", slice(hook.start, middle)), ("hook", slice(middle, hook.stop))]
    for kind, ring in rings:
        same = np.eye(ring.stop - ring.start)
        for step, weight in enumerate(WITHIN[kind], start=1):
            matrix[ring, ring] -= weight * (np.roll(same, step, 0) + np.roll(same, -step, 0))
    for (kind, rival), weight in ACROSS.items():
        matrix[span[kind], span[rival]] -= weight
    for kind, gain in GAINS.items():
        matrix[span[kind]] *= gain
        thresholds[span[kind]] = gain * LEAST
    return matrix, thresholds


# --- mixing ----------------------------------------------------------------------------------


def mixing() -> Float[np.ndarray, "d f"]:
    """The direction of each feature in the channels, [D, F]: norm 1 and non-negative, so that the
    ReLU that follows has no effect.

    Ten curves have a channel each, and three channels hold two curves each. Every other feature
    is spread over five of the last 80 channels, by a finite geometry: a feature is a pair (P, Q)
    of points of the affine plane over GF(4). Each of the plane's five parallel classes has 16
    channels, one for every pair of its lines, and the feature uses the channel of the lines
    through P and Q. Two points share at most one line, so two features share at most one channel,
    and the cosine of their directions is at most 1/5. Curves have Q = 0; every fourth of these
    channels therefore holds two to four curves, and the others none.
    """
    weights = np.zeros((WIDTH, sum(SIZES.values())))
    curves = DIRECTIONS.tolist()
    for channel, angle in enumerate(NEURONS):
        weights[channel, curves.index(angle)] = 1.0
    spread = [f for f, angle in enumerate(curves) if angle not in NEURONS]
    for point, feature in zip(POINTS, spread, strict=True):
        weights[_channels(point, 0), feature] = 1.0
    for other in range(weights.shape[1] - len(curves)):  # each channel has three to seven of these
        p, q = (other + 2 * (other // 15)) % 16, 1 + 11 * other % 15
        weights[_channels(p, q), len(curves) + other] = 1.0
    for channel, pair in enumerate(DOUBLES, start=len(NEURONS)):
        for angle in pair:
            weights[channel, curves.index(angle)] = np.sqrt(5 * DOUBLE / (1 - DOUBLE))
    weights /= np.linalg.norm(weights, axis=0)
    return weights


def _channels(p: int, q: int) -> list[int]:
    """The channel of the points p and q (numbered 4 x + y) in each parallel class."""
    first = len(NEURONS) + len(DOUBLES)
    return [first + 16 * c + 4 * _line(c, p) + _line(c, q) for c in range(5)]


def _line(parallel: int, point: int) -> int:
    """The line of a parallel class through a point: y + c x for slope c, and x for the fifth."""
    x, y = divmod(point, 4)
    return x if parallel == 4 else y ^ TIMES[parallel][x]
