"""The rules that plant features of continuous orientation, which share directions.

The layers are those of `planted_weights`: detectors, competition and mixing. Where those detect 24
orientations, these detect 96, every 3.75 degrees, and neither competition nor mixing tells
neighbours apart: several neighbours respond to one shape, and the direction of a feature changes
smoothly with its orientation. Letters: F features, D channels, N noise filters.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

from . import handmade_weights as rules
from . import planted_weights
from .handmade_weights import Block
from .planted_features import Kind

STEP = 3.75  # degrees between the reference orientations
FINE = 4  # reference orientations in the 15 degrees over which competition acts
DIRECTIONS = np.arange(0.0, 360.0, STEP)
NORMALS = np.arange(0.0, 180.0, STEP)
HANDS = (1, -1)
WIDTH = 96
FILTERS = 48


@dataclass(frozen=True)
class Plan:
    """What is planted in a network.

    seed: of channels and noise filters
    curves, circles: their radii in pixels
    corner: half of the angle of a corner, in degrees; 0 plants none
    shared: about the cosine of two curves of one orientation and different radius
    hooked: about the cosine of a hook and the part of a curve's direction that all radii share
    tuning: degrees between the orientations at which a channel's weight is half of its largest
    spacing: degrees between the channels of a ring
    noise: norm of the directions of the noise filters
    """

    name: str
    seed: int
    curves: tuple[float, ...]
    circles: tuple[float, ...]
    corner: float
    shared: float
    hooked: float
    tuning: float
    spacing: float
    noise: float


HARD = Plan(
    "planted-hard",
    seed=19,  # of 400: the features of different rings are least alike
    curves=(13.0, 24.0, 48.0),
    circles=(10.0, 18.0),
    corner=50.0,
    shared=0.5,
    hooked=0.5,
    tuning=34.0,
    spacing=15.0,
    noise=4.0,
)
TEST = Plan(
    "planted-test",
    seed=334,
    curves=(16.0, 36.0),
    circles=(14.0,),
    corner=0.0,
    shared=0.6,
    hooked=0.3,
    tuning=44.0,
    spacing=18.0,
    noise=4.5,
)


@dataclass(frozen=True)
class Ring:
    """Features that turns carry into one another: their kind, numbers, period in degrees, radius
    and hand."""

    kind: Kind
    rows: slice
    period: float
    radius: float = 0.0
    hand: int = 0

    @property
    def angles(self) -> Float[np.ndarray, " n"]:
        """Orientations of the features; one of no meaning for a circle."""
        count = self.rows.stop - self.rows.start
        return np.arange(count) * STEP


@cache
def rings(plan: Plan) -> tuple[Ring, ...]:
    """The rings of a plan in the order of the features' numbers."""
    specs: list[tuple[Kind, int, float, float, int]] = [
        *(("curve", 96, 360.0, radius, 0) for radius in plan.curves),
        ("line", 48, 180.0, 0.0, 0),
        *((("corner", 96, 360.0, 0.0, 0),) if plan.corner else ()),
        *(("circle", 1, 360.0, radius, 0) for radius in plan.circles),
        *(("hook", 96, 360.0, 0.0, hand) for hand in HANDS),
    ]
    found, done = [], 0
    for kind, count, period, radius, hand in specs:
        found.append(Ring(kind, slice(done, done + count), period, radius, hand))
        done += count
    return tuple(found)


def total(plan: Plan) -> int:
    """F, the number of features."""
    return int(rings(plan)[-1].rows.stop)


# --- detectors ---------------------------------------------------------------------------

SCALES: dict[Kind, tuple[float, float]] = {  # gain and threshold of a kind
    "curve": (0.167, 4.85),
    "line": (0.27, 0.0),
    "corner": (0.44, 3.15),
    "circle": (0.15, 1.0),
    "hook": (0.158, 3.5),
}


def detectors(plan: Plan) -> tuple[Block, Float[np.ndarray, " f"]]:
    """Weights [F + N, 32, 5, 5] and thresholds of the detectors, and of the noise filters after
    them."""
    count = total(plan)
    weights = np.zeros((count + FILTERS, 32, rules.SIDE, rules.SIDE))
    thresholds = np.zeros(count + FILTERS)
    for ring in rings(plan):
        first = 16 if ring.kind in ("line", "corner") else 0
        gain, threshold = SCALES[ring.kind]
        weights[ring.rows, first : first + 16] = gain * _block(plan, ring)
        thresholds[ring.rows] = gain * threshold
        if ring.kind == "line":
            weights[ring.rows, :16] += gain * rules.suppression(len(NORMALS), by=16)
    rng = np.random.Generator(np.random.Philox((plan.seed, 1)))
    noise = rng.normal(size=(FILTERS, *weights.shape[1:]))
    noise -= noise.mean(axis=(1, 2, 3), keepdims=True)
    weights[count:] = noise / np.abs(noise).sum(axis=(1, 2, 3), keepdims=True)
    return weights, thresholds


def _block(plan: Plan, ring: Ring) -> Block:
    if ring.kind == "curve":
        return rules.curves(DIRECTIONS, radii=(ring.radius,))
    if ring.kind == "line":
        return rules.lines(rules.SIDE, rules.PITCH, breadth=4.0, normals=NORMALS)
    if ring.kind == "corner":
        return rules.corners(
            DIRECTIONS, plan.corner, breadth=5.0, inhibition=1.0, beyond=0.7, start=2.0, width=35.0
        )
    if ring.kind == "circle":
        return rules.circles((ring.radius,))
    return planted_weights.hooks(ring.hand, directions=DIRECTIONS)


# --- competition -----------------------------------------------------------------------------

# inhibition by neighbours 15 and 30 degrees away in the same ring, and by rings of other kinds
WITHIN = {"curve": (0.1, 0.4), "line": (0.3, 0.5), "corner": (0.3, 0.6), "hook": (0.2, 0.6)}
ACROSS = planted_weights.ACROSS | {
    ("corner", "curve"): 0.25,
    ("curve", "circle"): 0.1,
    ("hook", "circle"): 0.1,
    ("line", "circle"): 0.1,
    ("circle", "curve"): 0.1,
}
RIVAL = 0.25  # inhibition by a curve of the same orientation and another radius
LEAST = 0.15
GAINS = {"curve": 6.0, "line": 5.0, "corner": 2.5, "circle": 15.0, "hook": 8.0}


def competition(plan: Plan) -> tuple[Float[np.ndarray, "f f"], Float[np.ndarray, " f"]]:
    """Weights [F + N, F + N] and thresholds: each feature minus its rivals; noise passes.

    Rivals in a ring stand 15 and 30 degrees away, so that some five neighbours stay active
    together, most of all the one of the shape's orientation. Curves of all radii respond to an arc,
    in proportions that change with its radius.
    """
    count = total(plan)
    matrix, thresholds = np.eye(count + FILTERS), np.zeros(count + FILTERS)
    curves = [ring for ring in rings(plan) if ring.kind == "curve"]
    many = {kind: sum(ring.kind == kind for ring in rings(plan)) for kind in SCALES}
    for ring in rings(plan):
        rows, gain = ring.rows, GAINS[ring.kind]
        same = np.eye(rows.stop - rows.start)
        for steps, weight in enumerate(WITHIN.get(ring.kind, ()), start=1):
            for shift in (FINE * steps, -FINE * steps):
                matrix[rows, rows] -= weight * np.roll(same, shift, 0)
        for other in rings(plan):
            weight = ACROSS.get((ring.kind, other.kind), 0.0)
            each = FINE * many[other.kind] / (2 if other.kind == "hook" else 1)
            matrix[rows, other.rows] -= weight / each
        if ring.kind == "curve":
            for other in curves:
                if other.radius != ring.radius:
                    matrix[rows, other.rows] -= RIVAL * same
        matrix[rows] *= gain
        thresholds[rows] = gain * LEAST
    return matrix, thresholds


# --- mixing ----------------------------------------------------------------------------------


@cache
def mixing(plan: Plan) -> Float[np.ndarray, "d f"]:
    """The direction of each feature, and after them those of the noise filters, [D, F + N]: norm 1
    and non-negative, so that the ReLU that follows has no effect.

    Each ring has channels of its own choice, `spacing` degrees apart, tuned to an orientation: the
    weight of a feature falls with its distance from it, to one half at `tuning` / 2. Channels are
    drawn for each ring, so that most are used by several rings. Curves are made of a part of their
    own and of a part that all radii have in common, and hooks of their own and of that part.
    """
    rng = np.random.Generator(np.random.Philox((plan.seed, 2)))
    count = total(plan)
    weights = np.zeros((WIDTH, count + FILTERS))
    common = _tuned(rng, plan, DIRECTIONS, 360.0)
    for ring in rings(plan):
        if ring.kind == "circle":
            weights[rng.permutation(WIDTH)[:8], ring.rows] = 8**-0.5
            continue
        own = _tuned(rng, plan, ring.angles, ring.period)
        part = {"curve": plan.shared, "hook": plan.hooked**2}.get(ring.kind, 0.0)
        weights[:, ring.rows] = np.sqrt(1 - part) * own + np.sqrt(part) * common[:, : own.shape[1]]
    for column in range(count, count + FILTERS):
        weights[rng.permutation(WIDTH)[:8], column] = 8**-0.5
    weights[:, :count] /= np.linalg.norm(weights[:, :count], axis=0)
    weights[:, count:] *= plan.noise
    return weights


def _tuned(
    rng: np.random.Generator, plan: Plan, angles: Float[np.ndarray, " f"], period: float
) -> Float[np.ndarray, "d f"]:
    """Unit directions of a ring, through channels that are drawn without repetition."""
    preferred = np.arange(0.0, period, plan.spacing)
    channels = rng.permutation(WIDTH)[: len(preferred)]
    drawn = np.zeros((WIDTH, len(angles)))
    apart = angles[None, :] - preferred[:, None]
    drawn[channels] = rules.agreement(apart, plan.tuning, period)
    drawn /= np.linalg.norm(drawn, axis=0)
    return drawn
