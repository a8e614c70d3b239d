"""Subjects with known features of continuous orientation, which are harder to find.

`planted-hard` detects curves of three radii, lines, corners, circles of two radii and hooks, at
any orientation, and mixes them into 96 channels. What makes it harder than `planted`:

- orientation is continuous: several of the 96 reference orientations of a ring respond to a shape,
  and directions change smoothly with orientation (cosine 0.77 at 15 degrees, 0.94 at 7.5);
- the radius of an arc is a second parameter, to which the curves respond in proportion;
- features of different families share directions, with a cosine of up to 0.69;
- circles respond at 2 % of the positions of dead leaves images, as often as other features;
- 48 random filters, which no turn or reflection permutes, add a tenth of the variance.

`planted-test` is a second such network, with other radii, channels, tuning and noise (an eighth of
the variance), and without corners: choose settings of a method with the first, and report what it
finds in the second.

Group elements whose turns are multiples of 3.75 degrees permute the reference orientations, e.g.
D_16, D_24 and D_32, up to the pixel grid. A family is a whole ring; both hands of hooks are one.
"""

from functools import cache

from ..subject import Subject
from .planted import subject_of
from .planted_features import Feature, Kind, PlantedFeatures
from .planted_rings_weights import (
    HARD,
    STEP,
    TEST,
    Ring,
    competition,
    detectors,
    mixing,
    rings,
    total,
)

PLANS = {plan.name: plan for plan in (HARD, TEST)}


def ring_subject(name: str) -> Subject:
    """The subject of a plan: sites of InceptionV1 up to mixed3b, and mixed3b_5x5_features, which
    holds noise filters after the features."""
    plan = PLANS[name]
    return subject_of(name, (detectors(plan), competition(plan)), mixing(plan))


@cache
def ring_features(name: str) -> PlantedFeatures:
    """The features of a plan at their reference orientations, and their directions."""
    plan = PLANS[name]
    features = tuple(feature for ring in rings(plan) for feature in _members(ring))
    return PlantedFeatures(name, features, mixing(plan)[:, : total(plan)], STEP, continuous=True)


def _members(ring: Ring) -> tuple[Feature, ...]:
    kind: Kind = ring.kind
    if kind == "circle":
        return (Feature(kind, None, radius=ring.radius),)
    return tuple(Feature(kind, angle, ring.hand, ring.radius) for angle in ring.angles.tolist())
