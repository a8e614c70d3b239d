"""Drawn shapes: their orbits, their symmetry, and the names that responses to them give."""

import numpy as np
import pytest

from tendril.data.group.dihedral import Dihedral
from tendril.study.measures.curve_stimuli import CurveGrid
from tendril.study.measures.latent_families import directed
from tendril.study.measures.shape_stimuli import (
    ShapeTuning,
    directions,
    moved,
    patch_radii,
    shapes,
)


def test_directions_move_as_the_group_says() -> None:
    for group in (Dihedral(6), Dihedral(5), Dihedral(4, reflections=False)):
        degrees, index = directions(group), moved(group)
        for a, angle in enumerate(degrees):
            for g in range(len(group)):
                moved_to = degrees[index[a, g]]
                assert np.isclose((moved_to - directed(group, g, float(angle)) + 180) % 360, 180)


def test_shapes_turn_with_their_direction_and_are_their_own_mirror_image() -> None:
    for shape in shapes((8.0, 40.0)):
        right = shape.draw(0.0, 41, 2.0)
        assert np.allclose(right, right[::-1], atol=1e-5)  # about its own direction
        assert np.allclose(shape.draw(90.0, 41, 2.0), np.rot90(right, -1), atol=1e-5)
        assert 0 <= right.min() < 0.5 and right.max() == 1
    line, end = (s.draw(0.0, 41, 2.0) for s in shapes((8.0,)) if s.kind in ("line", "line end"))
    assert np.allclose(line, line[:, ::-1], atol=1e-3)
    assert end[20, :18].max() < 0.5 and end[20, 23:].min() == 1  # it ends towards +x


def test_a_curve_must_beat_other_shapes_by_the_margin() -> None:
    chosen = shapes((8.0, 40.0))
    z_QAS = np.zeros((len(chosen), 8, 4), np.float32)
    kinds = [shape.kind for shape in chosen]
    z_QAS[kinds.index("curve"), 2, :3] = 1.0
    z_QAS[kinds.index("edge"), 4, 1] = 0.95
    z_QAS[kinds.index("line end"), 4, 2] = 2.0
    tuning = ShapeTuning(tuple(chosen), np.arange(8) * 45.0, z_QAS)

    assert tuning.names(margin=0.1) == ["curve", "edge", "line end", "silent"]
    assert tuning.names(margin=0.0)[1] == "curve"
    assert tuning.direction(0, "curve") == pytest.approx(90)
    assert tuning.direction(3, "curve") is None
    ratios = [tuning.curve_ratio(latent) for latent in range(4)]
    assert ratios == [np.inf, pytest.approx(1 / 0.95), 0.5, 0]


def test_radii_suit_the_patch() -> None:
    usual = CurveGrid().radii
    assert patch_radii(91) == tuple(round(radius, 2) for radius in usual)
    assert patch_radii(45) == tuple(round(radius / 2, 2) for radius in usual)
