"""What is planted in a network: features, their directions, and how a group acts on them."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, final

import numpy as np
from jaxtyping import Float, Int64

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral

from ..inception import BLOCKS
from .handmade import UNTIL

SITE = "mixed3b_5x5"
FIRST = {SITE: 0, UNTIL: BLOCKS[UNTIL].conv1x1 + BLOCKS[UNTIL].conv3x3}
"""The first channel of mixed3b_5x5 in each site that contains it."""

REPRESENTS = 0.8
"""Least cosine of a latent with a feature that it represents. A latent halfway between two
orthogonal features has 0.71 with each."""

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
    is that of a circle in pixels, or of a curve where curves of several radii are planted, and 0
    otherwise.
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


@final
@dataclass(frozen=True, eq=False)
class PlantedFeatures:
    """The features of a network, and their directions at mixed3b_5x5.

    name: of the subject
    features: by number
    mixing_DF: direction of each feature in the channels of mixed3b_5x5, with norm 1
    step: degrees of the smallest turn that permutes the features
    continuous: True if the features are reference orientations of continuous families, so that a
        family is what all turns carry into one another, whichever of them a group has
    """

    name: str
    features: tuple[Feature, ...]
    mixing_DF: Float[np.ndarray, "d f"]
    step: float
    continuous: bool = False

    def directions(self, site: str = SITE) -> Float[np.ndarray, "f d"]:
        """The direction [f, D] of each feature at mixed3b_5x5 or mixed3b, with norm 1.

        Raises ConfigError for other sites.
        """
        if site not in FIRST:
            raise ConfigError(
                f"the site of planted features must be {' or '.join(FIRST)}; got {site!r}."
            )
        channels = len(self.mixing_DF)
        width = channels if site == SITE else BLOCKS[UNTIL].width
        directions_FD = np.zeros((len(self.features), width))
        directions_FD[:, FIRST[site] : FIRST[site] + channels] = self.mixing_DF.T
        return directions_FD

    def permutations(self, group: Dihedral) -> Int64[np.ndarray, "f g"]:
        """The group action on features: entry [i, g] is the number of the feature T_g i.

        Raises ConfigError if the group's turns are not multiples of `step`.
        """
        if group.step % self.step:
            whole = round(360 / self.step)
            fits = [n for n in range(whole, 0, -1) if whole % n == 0]
            raise ConfigError(
                f"the turns of a group that permutes planted features must be multiples of "
                f"{self.step:g} degrees; {group.name} turns by {group.step:g}. Set --rotations to "
                f"{', '.join(map(str, fits[:-1]))} or {fits[-1]}."
            )
        return _permutations(self.features, group)

    def blocks(self, group: Dihedral, site: str = SITE) -> Float[np.ndarray, "f g d"]:
        """The ideal decoder of a group crosscoder: block [i, g] is the direction of feature T_g
        i."""
        blocks_FGD: Float[np.ndarray, "f g d"] = self.directions(site)[self.permutations(group)]
        return blocks_FGD

    def families(self, group: Dihedral) -> Int64[np.ndarray, " f"]:
        """The family of each feature: its orbit under the group (or, if `continuous`, under all
        turns, and reflections if the group has them), numbered from 0."""
        if self.continuous:
            group = Dihedral(round(360 / self.step), reflections=group.reflections)
        smallest_F = self.permutations(group).min(axis=1)
        _, family_F = np.unique(smallest_F, return_inverse=True)
        return np.asarray(family_F, np.int64)


@cache
def _permutations(features: tuple[Feature, ...], group: Dihedral) -> Int64[np.ndarray, "f g"]:
    number = {feature: i for i, feature in enumerate(features)}
    return np.array(
        [[number[f.transformed(group, g)] for g in range(len(group))] for f in features], np.int64
    )
