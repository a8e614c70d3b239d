"""A subject of known features in superposition: the handmade network with a hidden layer more.

Where mixed3b_5x5 has its 5x5 convolution, this one detects 110 features (site
mixed3b_5x5_features) and mixes them into the 96 channels of mixed3b_5x5. Twenty-four curves,
twelve lines, twenty-four corners, two circles and forty-eight hooks: turns by 15 degrees and
reflections permute them, as exactly as the grid of pixels permits. Single channels show ten
curves, without 180 to 240 and 300 to 360 degrees, and three pairs of curves; all else is there
in superposition alone. FEATURES says what is planted, `directions` where, and `planted_blocks`
what a group crosscoder should find.
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
"""What fixes each kind, in the words of the study of symmetry: a line is fixed by a half turn,
too, a circle by everything, a hook by nothing."""


@dataclass(frozen=True)
class Feature:
    """A planted feature.

    `orientation` in degrees: where a curve or a hook bulges, where a corner points, the normal of
    a line (modulo 180), None for a circle. `hand` is 1 where a hook's arc goes on clockwise, -1
    where the other way, and 0 for all else; `radius` is a circle's, in pixels, 0 for all else.
    """

    kind: Kind
    orientation: float | None
    hand: int = 0
    radius: float = 0.0

    def transformed(self, group: Dihedral, element: int) -> "Feature":
        """What it looks like after T_element."""
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
    """The direction of each feature at mixed3b_5x5 or mixed3b: unit length, float64.

    Raises ConfigError for another site.
    """
    if site not in FIRST:
        raise ConfigError(
            f"features are planted at {' and '.join(FIRST)}, and not at {site!r}; "
            "ask for one of those."
        )
    mixing_DF = rules.mixing()
    width = len(mixing_DF) if site == SITE else BLOCKS[UNTIL].width
    there_FD = np.zeros((len(FEATURES), width))
    there_FD[:, FIRST[site] : FIRST[site] + len(mixing_DF)] = mixing_DF.T
    return there_FD


@cache
def permutations(group: Dihedral) -> Int64[np.ndarray, "f g"]:
    """[i, g]: the number of the feature that T_g makes of feature i.

    Raises ConfigError where turns of the group are no multiples of 15 degrees.
    """
    if group.step % rules.STEP:
        raise ConfigError(
            f"planted features are permuted by turns of {rules.STEP:g} degrees and multiples of "
            f"it, and {group.name} turns by {group.step:g}; --rotations is 24, 12, 8, 6, 4, 3, 2 "
            "or 1 with this subject."
        )
    return np.array(
        [[NUMBER[f.transformed(group, g)] for g in range(len(group))] for f in FEATURES], np.int64
    )


def planted_blocks(group: Dihedral, site: str = SITE) -> Float[np.ndarray, "f g d"]:
    """What a latent that stands for feature i writes into block g: the direction of T_g i."""
    there_FGD: Float[np.ndarray, "f g d"] = directions(site)[permutations(group)]
    return there_FGD


def families(group: Dihedral) -> Int64[np.ndarray, " f"]:
    """The family of each feature: features that the group takes into one another."""
    _, family_F = np.unique(permutations(group).min(axis=1), return_inverse=True)
    return np.asarray(family_F, np.int64)


def planted_subject() -> Subject:
    """The subject `planted`: sites of InceptionV1 up to mixed3b, and mixed3b_5x5_features."""
    network = handmade_network()
    bare = unpadded(network)
    for one in (network, bare):
        _plant(one)
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
    """Put detectors, competition and mixing where the 5x5 convolution was."""
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
