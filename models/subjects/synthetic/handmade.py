"""A subject with known features: InceptionV1's first stages, with weights written by rule.

Nothing is learned or read from a file. Each layer is built geometrically from the layer before,
like the circuits of the trained network. mixed3b_5x5 holds detectors of curves at sixteen known
orientations, and of lines, corners and circles; PLANTED lists them.
Source of the construction: Cammarata et al., "Curve Circuits", Distill 2021.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..inception import InceptionV1, inception_sites, preprocess, unpadded
from ..subject import Subject, weights_digest
from . import handmade_weights as rules

UNTIL = "mixed3b"
NORMALISATION = "lucent"
GUARD = 4  # neighbouring channels on each side within the response normalisation
INPUT_SIZE = 160
STEPS = 2.0**20  # weights are rounded to 1 / STEPS, so that their digest is machine-independent

Kind = Literal["curve", "line", "corner", "circle"]


@dataclass(frozen=True)
class Planted:
    """A unit of mixed3b_5x5, and the feature that it is built to detect.

    `orientation` is in degrees: the direction of a curve's bulge, the direction a corner points
    in, the normal of a line (modulo 180), and None for a circle.
    """

    unit: int
    kind: Kind
    orientation: float | None


def _planted() -> tuple[Planted, ...]:
    features: list[tuple[Kind, float | None]] = [
        *(("curve", float(angle)) for angle in rules.DIRECTIONS),
        *(("line", float(angle)) for angle in rules.NORMALS),
        *(("corner", float(angle)) for angle in rules.CORNERS),
        *(("circle", None) for _ in rules.CIRCLES),
    ]
    return tuple(Planted(unit, kind, angle) for unit, (kind, angle) in enumerate(features))


PLANTED = _planted()


def handmade_subject() -> Subject:
    """The subject `handmade`, with the sites of InceptionV1 up to mixed3b.

    PLANTED is the ground truth for mixed3b_5x5; its other units are always silent.
    """
    network = handmade_network()
    return Subject(
        name="handmade",
        module=network,
        preprocess=preprocess,
        input_size=INPUT_SIZE,
        sites=inception_sites(UNTIL),
        unpadded=unpadded(network),
        identity={
            "name": "handmade",
            "weights": weights_digest(network),
            "normalisation": NORMALISATION,
        },
    )


def handmade_network() -> InceptionV1:
    """InceptionV1 up to mixed3b with weights written by rule."""
    network = InceptionV1(NORMALISATION, until=UNTIL).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    _write_stem(network)
    _write_mixed3a(network)
    _write_mixed3b(network)
    return network


def _write_stem(network: InceptionV1) -> None:
    """conv2d0: 0-47 Gabors, 48-63 colours. conv2d1: 0-15 energies, 16-31 edges, 32-47 colours.
    conv2d2: 0-23 lines, 24-39 tiny curves, 40-55 edges, 56-71 colours.

    Response normalisation divides by neighbouring channels. The last four lines are therefore
    repeated before the first, and the first four after the last, so that all lines have the same
    neighbours. Small gains keep activations small, so that normalisation has little effect.
    """
    _write(network, "conv2d0", 0, 0, rules.gabor_bank(), gain=0.1)
    _write(network, "conv2d0", 48, 0, rules.colour_blobs(), gain=0.1)
    _write(network, "conv2d1", 0, 0, rules.pooled_phases(), gain=2.0)
    _write(network, "conv2d1", 16, 0, rules.pooled_edges(), gain=4.0)
    _write(network, "conv2d1", 32, 48, _same())
    lines = rules.lines(3, 4.0, breadth=2.5)
    ring = np.concatenate([lines[-GUARD:], lines, lines[:GUARD]])
    _write(network, "conv2d2", 0, 0, ring, gain=3.0)
    _write(network, "conv2d2", 24, 0, rules.bends(3, 4.0, 20.0, 3.0, 6.0), gain=4.0)
    _write(network, "conv2d2", 40, 16, rules.edges(3, 4.0, breadth=3.0), gain=3.0)
    _write(network, "conv2d2", 56, 32, _same(side=3))


def _write_mixed3a(network: InceptionV1) -> None:
    """Sixteen channels each. 1x1: lines, tiny curves, edges, colours. 3x3: early curves, lines.
    5x5: wider early curves, longer lines. pool_reduce: lines, colours."""
    for first, first_in in ((0, GUARD), (16, 24), (32, 40), (48, 56)):
        _write(network, "mixed3a_1x1", first, first_in, _same())
    for branch, side, turn, length in (("3x3", 3, 30.0, 12.0), ("5x5", 5, 15.0, 20.0)):
        early = rules.bends(side, 8.0, turn, 6.0, length)
        _write(network, f"mixed3a_{branch}_bottleneck", 0, GUARD, _same())
        _write(network, f"mixed3a_{branch}", 0, 0, early, gain=8.0)
        _write(network, f"mixed3a_{branch}", 16, 0, rules.lines(side, 8.0, breadth=4.0), gain=2.0)
    _write(network, "mixed3a_pool_reduce", 0, GUARD, _same())
    _write(network, "mixed3a_pool_reduce", 16, 56, _same())


def _write_mixed3b(network: InceptionV1) -> None:
    """5x5: the planted units. They read the early curves of mixed3a's 3x3 and 5x5 branches (the
    latter for wide radii) and the lines of its 3x3 branch. The other branches have sixteen channels
    each of: 1x1 lines, early curves, edges, colours; 3x3 longer lines, edges, colours; pool_reduce
    lines, colours.

    Gains and thresholds make a curve detector silent at 19 of 20 positions of dead leaves images,
    and give all kinds similar magnitudes, so that a dictionary has to distinguish them.
    """
    early, lines, wide, edges, colours, pooled_colours = 64, 80, 192, 32, 48, 240
    five = "mixed3b_5x5"  # sees early curves as 0-15 and lines as 16-31
    _write(network, f"{five}_bottleneck", 0, early, _same(), gain=0.5)
    _write(network, f"{five}_bottleneck", 0, wide, _same(), gain=0.5)
    _write(network, f"{five}_bottleneck", 16, lines, _same())
    _write(network, five, 0, 0, rules.curves(), gain=4.0, threshold=22.0)
    _write(network, five, 16, 0, rules.suppression(16, by=16), gain=10.0)
    _write(network, five, 16, 16, rules.lines(5, 8.0, breadth=4.0), gain=10.0)
    _write(network, five, 32, 16, rules.corners(), gain=6.0, threshold=8.0)
    _write(network, five, 40, 0, rules.circles(), gain=8.0, threshold=20.0)
    for first, first_in in ((0, lines), (16, early), (32, edges), (48, colours)):
        _write(network, "mixed3b_1x1", first, first_in, _same())
        _write(network, "mixed3b_3x3_bottleneck", first, first_in, _same())
    _write(network, "mixed3b_3x3", 0, 0, rules.lines(3, 8.0, breadth=4.0), gain=2.0)
    _write(network, "mixed3b_3x3", 16, 32, rules.edges(3, 8.0, breadth=4.0), gain=2.0)
    _write(network, "mixed3b_3x3", 32, 48, _same(side=3))
    _write(network, "mixed3b_pool_reduce", 0, lines, _same())
    _write(network, "mixed3b_pool_reduce", 16, pooled_colours, _same())


def _write(
    network: InceptionV1,
    layer: str,
    first: int,
    first_in: int,
    block: rules.Block,
    gain: float = 1.0,
    threshold: float = 0.0,
) -> None:
    """Write a block of weights for output channels from `first` and inputs from `first_in` on."""
    conv = getattr(network, f"{layer}_pre_relu_conv")
    outs, ins = block.shape[:2]
    rounded = torch.from_numpy(np.rint(gain * block * STEPS) / STEPS)
    conv.weight[first : first + outs, first_in : first_in + ins] = rounded.float()
    conv.bias[first : first + outs] = -threshold


def _same(count: int = 16, side: int = 1) -> rules.Block:
    """Weights that copy channels: 1 at the middle cell of each kernel."""
    block = np.zeros((count, count, side, side))
    block[:, :, side // 2, side // 2] = np.eye(count)
    return block
