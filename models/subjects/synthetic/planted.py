"""A subject with known features in superposition: the handmade network plus a hidden layer.

In place of the 5x5 convolution of mixed3b_5x5, this network detects 110 features (site
mixed3b_5x5_features) and mixes them into the 96 channels of mixed3b_5x5: 24 curves, 12 lines, 24
corners, 2 circles and 48 hooks. Turns by 15 degrees and reflections permute the features, up to
the pixel grid. Ten curves have a channel of their own (none between 180 and 240 or between 300
and 360 degrees), and three channels hold a pair of curves each; all other features exist only in
superposition. FEATURES lists them, `directions` gives their directions, and `planted_blocks` what
a group crosscoder should find.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import nn

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral

from ..inception import BLOCKS, InceptionV1, inception_sites, preprocess, unpadded
from ..subject import Subject, weights_digest
from . import planted_weights as rules
from .handmade import INPUT_SIZE, NORMALISATION, STEPS, UNTIL, handmade_network

SITE = "mixed3b_5x5"
FEATURE_SITE = f"{SITE}_features"
REPLACED = f"{SITE}_pre_relu_conv"
FIRST = {SITE: 0, UNTIL: BLOCKS[UNTIL].conv1x1 + BLOCKS[UNTIL].conv3x3}
"""The first channel of mixed3b_5x5 in each site that contains it."""

Kind = Literal["curve", "line", "corner", "circle", "hook"]
CLASSES: dict[Kind, str] = {
    "curve": "one reflection",
    "line": "both",
    "corner": "one reflection",
    "circle": "invariant",
    "hook": "chiral",
}
"""The stabiliser of each kind, in the terms of the symmetry study: a line is also fixed by a half
turn, a circle by all elements, and a hook by the identity only."""


@dataclass(frozen=True)
class Feature:
    """A planted feature.

    `orientation` is in degrees: the direction of the bulge of a curve or hook, the direction a
    corner points in, the normal of a line (modulo 180), and None for a circle. `hand` is 1 for
    hooks whose arc continues clockwise, -1 for the mirror image, and 0 for other kinds. `radius`
    is that of a circle in pixels, and 0 for other kinds.
    """

    kind: Kind
    orientation: float | None
    hand: int = 0
    radius: float = 0.0

    def transformed(self, group: Dihedral, element: int) -> "Feature":
        """The feature after the group element T_element is applied to the image."""
        if self.orientation is None:
            return self
        reflected, turns = group.parts(element)
        angle = (-self.orientation if reflected else self.orientation) + turns * group.step
        period = 180.0 if self.kind == "line" else 360.0
        hand = -self.hand if reflected else self.hand
        return Feature(self.kind, round(angle % period, 6) % period, hand, self.radius)


def _features() -> tuple[Feature, ...]:
    directions = rules.DIRECTIONS.tolist()
    return (
        *(Feature("curve", angle) for angle in directions),
        *(Feature("line", angle) for angle in rules.NORMALS.tolist()),
        *(Feature("corner", angle) for angle in directions),
        *(Feature("circle", None, radius=radius) for radius in rules.RADII),
        *(Feature("hook", angle, hand) for hand in rules.HANDS for angle in directions),
    )


FEATURES = _features()
NUMBER = {feature: number for number, feature in enumerate(FEATURES)}


def directions(site: str = SITE) -> Float[np.ndarray, "f d"]:
    """The direction [f, D] of each feature at mixed3b_5x5 or mixed3b, with norm 1.

    Raises ConfigError for other sites.
    """
    if site not in FIRST:
        raise ConfigError(
            f"the site of planted features must be {' or '.join(FIRST)}; got {site!r}."
        )
    mixing_DF = rules.mixing()
    width = len(mixing_DF) if site == SITE else BLOCKS[UNTIL].width
    directions_FD = np.zeros((len(FEATURES), width))
    directions_FD[:, FIRST[site] : FIRST[site] + len(mixing_DF)] = mixing_DF.T
    return directions_FD


@cache
def permutations(group: Dihedral) -> Int64[np.ndarray, "f g"]:
    """The group action on features: entry [i, g] is the number of the feature T_g i.

    Raises ConfigError if the group's turns are not multiples of 15 degrees.
    """
    if group.step % rules.STEP:
        raise ConfigError(
            f"the turns of a group that permutes planted features must be multiples of "
            f"{rules.STEP:g} degrees; {group.name} turns by {group.step:g}. Set --rotations to 24, "
            "12, 8, 6, 4, 3, 2 or 1."
        )
    return np.array(
        [[NUMBER[f.transformed(group, g)] for g in range(len(group))] for f in FEATURES], np.int64
    )


def planted_blocks(group: Dihedral, site: str = SITE) -> Float[np.ndarray, "f g d"]:
    """The ideal decoder of a group crosscoder: block [i, g] is the direction of feature T_g i."""
    blocks_FGD: Float[np.ndarray, "f g d"] = directions(site)[permutations(group)]
    return blocks_FGD


def families(group: Dihedral) -> Int64[np.ndarray, " f"]:
    """The family of each feature: its orbit under the group, numbered from 0."""
    _, family_F = np.unique(permutations(group).min(axis=1), return_inverse=True)
    return np.asarray(family_F, np.int64)


def planted_subject() -> Subject:
    """The subject `planted`: sites of InceptionV1 up to mixed3b, and mixed3b_5x5_features."""
    network = handmade_network()
    bare = unpadded(network)
    for variant in (network, bare):
        _plant(variant)
    return Subject(
        name="planted",
        module=network,
        preprocess=preprocess,
        input_size=INPUT_SIZE,
        sites=inception_sites(UNTIL) | {FEATURE_SITE: (f"{REPLACED}.features",)},
        unpadded=bare,
        identity={
            "name": "planted",
            "weights": weights_digest(network),
            "normalisation": NORMALISATION,
        },
    )


def _plant(network: InceptionV1) -> None:
    """Replace the 5x5 convolution by detectors, competition and mixing."""
    weights, thresholds = rules.detectors()
    matrix, least = rules.competition()
    mixing = rules.mixing()
    layers = OrderedDict[str, nn.Module](
        detectors=_conv(weights, -thresholds, padding=2 if network.padded else 0),
        detected=nn.ReLU(),
        competition=_conv(matrix[:, :, None, None], -least),
        features=nn.ReLU(),
        mixing=_conv(mixing[:, :, None, None], np.zeros(len(mixing))),
    )
    network.add_module(REPLACED, nn.Sequential(layers).eval().requires_grad_(False))


def _conv(
    weight: Float[np.ndarray, "o i k k"], bias: Float[np.ndarray, " o"], padding: int = 0
) -> nn.Conv2d:
    outs, ins, side, _ = weight.shape
    conv = nn.Conv2d(ins, outs, side, padding=padding)
    for parameter, values in ((conv.weight, weight), (conv.bias, bias)):
        assert parameter is not None
        rounded = np.rint(values * STEPS) / STEPS
        parameter.data.copy_(torch.from_numpy(rounded))
    return conv
