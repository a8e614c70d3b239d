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
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import nn

from tendril.data.group.dihedral import Dihedral

from ..inception import InceptionV1, inception_sites, preprocess, unpadded
from ..subject import Subject, weights_digest
from . import planted_weights as rules
from .handmade import INPUT_SIZE, NORMALISATION, STEPS, UNTIL, handmade_network
from .planted_features import SITE, Feature, PlantedFeatures

FEATURE_SITE = f"{SITE}_features"
REPLACED = f"{SITE}_pre_relu_conv"

Rule = tuple[Float[np.ndarray, "..."], Float[np.ndarray, " o"]]  # weights and thresholds


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


@cache
def planted_features() -> PlantedFeatures:
    """The features and their directions."""
    return PlantedFeatures("planted", FEATURES, rules.mixing(), rules.STEP)


def directions(site: str = SITE) -> Float[np.ndarray, "f d"]:
    """See `PlantedFeatures.directions`."""
    return planted_features().directions(site)


def permutations(group: Dihedral) -> Int64[np.ndarray, "f g"]:
    """See `PlantedFeatures.permutations`."""
    return planted_features().permutations(group)


def planted_blocks(group: Dihedral, site: str = SITE) -> Float[np.ndarray, "f g d"]:
    """See `PlantedFeatures.blocks`."""
    return planted_features().blocks(group, site)


def families(group: Dihedral) -> Int64[np.ndarray, " f"]:
    """See `PlantedFeatures.families`."""
    return planted_features().families(group)


def planted_subject() -> Subject:
    """The subject `planted`: sites of InceptionV1 up to mixed3b, and mixed3b_5x5_features."""
    return subject_of("planted", (rules.detectors(), rules.competition()), rules.mixing())


def subject_of(name: str, hidden: Sequence[Rule], mixing_DF: Float[np.ndarray, "d f"]) -> Subject:
    """The handmade network with other layers in place of the 5x5 convolution of mixed3b_5x5:
    detectors and competition (`hidden`), a ReLU after each, and mixing into channels."""
    network = handmade_network()
    bare = unpadded(network)
    for variant in (network, bare):
        _plant(variant, hidden, mixing_DF)
    return Subject(
        name=name,
        module=network,
        preprocess=preprocess,
        input_size=INPUT_SIZE,
        sites=inception_sites(UNTIL) | {FEATURE_SITE: (f"{REPLACED}.features",)},
        unpadded=bare,
        identity={
            "name": name,
            "weights": weights_digest(network),
            "normalisation": NORMALISATION,
        },
    )


def _plant(
    network: InceptionV1, hidden: Sequence[Rule], mixing_DF: Float[np.ndarray, "d f"]
) -> None:
    """Replace the 5x5 convolution by detectors, competition and mixing."""
    (weights, thresholds), (matrix, least) = hidden
    layers = OrderedDict[str, nn.Module](
        detectors=_conv(weights, -thresholds, padding=2 if network.padded else 0),
        detected=nn.ReLU(),
        competition=_conv(matrix[:, :, None, None], -least),
        features=nn.ReLU(),
        mixing=_conv(mixing_DF[:, :, None, None], np.zeros(len(mixing_DF))),
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
