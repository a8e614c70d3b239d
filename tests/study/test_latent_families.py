"""Similarity over the group and families: known poses are found."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tendril.data.group.dihedral import Dihedral
from tendril.study.measures.latent_families import (
    LatentFamily,
    alignment,
    correlations,
    directed,
    find_families,
    pairs_alike,
    wrapped,
)
from tendril.study.measures.stabilisers import estimate_stabilisers, measure
from tendril.study.measures.subgroups import Subgroup

from ..helpers.symmetric_blocks import Units, pattern, reflection, symmetric, under

groups = st.builds(Dihedral, st.integers(1, 9), st.booleans())


@settings(deadline=None, max_examples=40)
@given(groups, st.integers(0, 10**6))
def test_the_transform_gives_what_the_sums_say(group: Dihedral, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a_FGD, b_EGD = (rng.normal(size=(f, len(group), 5)).astype(np.float32) for f in (3, 4))
    slow_FEG = np.einsum("fgd,eghd->feh", a_FGD, b_EGD[:, group.table_GG])

    assert np.allclose(correlations(a_FGD, b_EGD, group), slow_FEG, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 9), st.integers(0, 10**6), st.data())
def test_a_copy_is_found_in_its_pose(n: int, seed: int, data: st.DataObject) -> None:
    """Units see T_h p: their orbit is that of p in pose h, and of no other side."""
    group, rng = Dihedral(n), np.random.default_rng(seed)
    pose = data.draw(st.integers(0, len(group) - 1))
    units, points = Units(rng), pattern(rng, points=5)
    one = units.orbit(points, group)[None]
    other = units.orbit(under(group.matrix_G22[pose], points), group)[None]
    cosine, found = alignment(other, one, group)

    assert np.isclose(cosine[0, 0], 1, atol=1e-4) and found[0, 0] == pose
    back, inverse = alignment(one, other, group)
    assert np.isclose(back[0, 0], 1, atol=1e-4) and inverse[0, 0] == group.inverse(pose)


def test_families_are_the_patterns_and_their_directions_the_poses() -> None:
    group, rng = Dihedral(8), np.random.default_rng(0)
    units = Units(rng)
    right = np.abs(pattern(rng, 3))  # all on one side, so that a half turn shows
    curve = symmetric(right, [np.eye(2), reflection(0)])  # its axis lies along +x
    chiral = pattern(rng, 5)
    poses = [group.element(0, k) for k in (0, 1, 2, 5, 6)]
    blocks = [units.orbit(under(group.matrix_G22[h], curve), group) for h in poses]
    blocks += [units.orbit(under(group.matrix_G22[h], chiral), group) for h in (0, 3, 12)]
    blocks_FGD = np.stack(blocks) + 0.01 * rng.normal(size=(8, len(group), 24))
    symmetry = measure(blocks_FGD, group)
    stabilisers = estimate_stabilisers(
        symmetry, {h.kind: 0.9 for h in symmetry.subgroups} | {"C1": 0.0}, 0.01
    )
    axes = [h.degrees if h else None for h in stabilisers]
    found = find_families(*alignment(blocks_FGD, blocks_FGD, group), 0.9, group, stabilisers, axes)

    assert [f.members for f in found] == [(0, 1, 2, 3, 4), (5, 6, 7)]
    first = found[0]
    assert first.stabiliser is not None and first.stabiliser.kind == "D1" and first.period == 360
    # up to which end of the axis is called its direction
    turns = (np.array(first.directions) - first.directions[0]) % 360
    assert np.allclose(turns, [0, 45, 90, 225, 270])
    assert first.gap is not None and np.isclose(first.gap.degrees, 135)
    head = found[1].members.index(found[1].head)
    assert found[1].poses[head] == 0 and sum(found[1].hands) == 3 and min(found[1].hands) == 1


def test_a_pattern_with_a_half_turn_has_half_a_circle() -> None:
    group, rng = Dihedral(8), np.random.default_rng(1)
    units = Units(rng)
    line = symmetric(pattern(rng), [np.eye(2), reflection(0), reflection(90), -np.eye(2)])
    blocks_FGD = np.stack([units.orbit(under(group.matrix_G22[h], line), group) for h in (0, 1, 4)])
    stabilisers = [Subgroup(group, 2, a) for a in (0, 2, 0)]
    (family,) = find_families(
        *alignment(blocks_FGD, blocks_FGD, group), 0.9, group, stabilisers, [0.0, 45.0, 0.0]
    )
    assert family.period == 180 and family.gap is not None
    assert sorted(family.directions) == [0, 0, 45] and np.isclose(family.gap.degrees, 135)


def test_what_does_not_vary_is_like_nothing() -> None:
    group = Dihedral(4)
    blocks_FGD = np.stack([np.ones((8, 3)), np.random.default_rng(0).normal(size=(8, 3))])
    cosine_FF, _ = alignment(blocks_FGD, blocks_FGD, group)
    assert np.allclose(cosine_FF, [[0, 0], [0, 1]], atol=1e-5)
    found = find_families(
        cosine_FF, np.zeros((2, 2), int), 0.5, group, [None, Subgroup(group, 1)], [None, None]
    )
    assert len(found) == 2
    assert {f.gap for f in found} != {None} and found[0].gap is None and found[0].directions == [0]


def test_pairs_of_one_input_are_left_out_of_the_null() -> None:
    group, rng = Dihedral(4), np.random.default_rng(0)
    one = rng.normal(size=(1, 8, 6))
    blocks_MGD = np.concatenate([one, one, rng.normal(size=(4, 8, 6))])
    assert pairs_alike(blocks_MGD, group)[-1] > 0.999
    assert pairs_alike(blocks_MGD, group, np.array([0, 0, 1, 2, 3, 4]))[-1] < 0.999


@given(groups, st.floats(0, 360), st.integers(0, 100))
def test_directions_are_those_of_the_matrices(group: Dihedral, angle: float, g: int) -> None:
    element = g % len(group)
    x, y = group.matrix_G22[element] @ [np.cos(np.radians(angle)), np.sin(np.radians(angle))]
    difference = directed(group, element, angle) - np.degrees(np.arctan2(y, x))
    assert abs((difference + 180) % 360 - 180) < 1e-6


def test_an_angle_just_below_its_period_is_0() -> None:
    assert wrapped(359.99, 360.0) == wrapped(179.96, 180.0) == wrapped(-0.01, 360.0) == 0
    assert wrapped(359.9, 360.0) == 359.9 and wrapped(179.99, 360.0) == 179.99
    group = Dihedral(4)
    family = LatentFamily(group, 0, (0, 1), (0, 1), (1.0, 1.0), Subgroup(group, 1, 0), 359.99)
    assert family.directions[0] == 0 and np.isclose(family.directions[1], 89.99)
