"""Stabilisers, classes and irreducible representations of patterns of known symmetry, seen by units
without symmetry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tendril.data.group.dihedral import Dihedral
from tendril.study.measures.latent_families import directed
from tendril.study.measures.stabilisers import (
    Null,
    autocorrelation,
    axis_angle,
    centred,
    class_counts,
    class_of,
    cosines,
    estimate_stabilisers,
    measure,
    null_of,
    relabelled,
)
from tendril.study.measures.subgroups import Subgroup, subgroups

from ..helpers.symmetric_blocks import Units, pattern, reflection, symmetric, turn, under

groups = st.builds(Dihedral, st.integers(1, 12), st.booleans())
LEAST = 0.999
EXACT = {
    f"{letter}{d}": LEAST if (letter, d) != ("C", 1) else 0.0
    for letter in "CD"
    for d in range(1, 33)
}


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 9), st.integers(0, 10**6), st.data())
def test_the_stabiliser_is_that_of_the_pattern(n: int, seed: int, data: st.DataObject) -> None:
    """Every subgroup, at every pose: pictures that it fixes, seen by units without symmetry."""
    group, rng = Dihedral(n), np.random.default_rng(seed)
    h = data.draw(st.sampled_from([h for h in subgroups(group) if len(h) < len(group)]))
    points = symmetric(pattern(rng), [group.matrix_G22[s] for s in h.elements])
    blocks_FGD = Units(rng).orbit(points, group)[None]
    symmetry = measure(blocks_FGD, group)

    assert estimate_stabilisers(symmetry, EXACT, flat=1e-9) == [h]
    assert np.isclose(symmetry.fractions[0, symmetry.subgroups.index(h)], 1)


def test_on_the_other_side_a_reflection_is_not_found() -> None:
    """The mistake that a commuting group hides: D[sg] = D[g] instead of D[gs] = D[g]."""
    group, rng = Dihedral(6), np.random.default_rng(0)
    h = Subgroup(group, 1, axis=1)
    points = symmetric(pattern(rng), [group.matrix_G22[s] for s in h.elements])
    blocks_GD = Units(rng).orbit(points, group)
    mirror = h.elements[1]

    assert np.allclose(blocks_GD[group.table_GG[:, mirror]], blocks_GD)  # x(p)[gs]
    assert not np.allclose(blocks_GD[group.table_GG[mirror]], blocks_GD, rtol=0.05)  # x(p)[sg]
    # left multiplication is right multiplication of the inverses: the wrong reading
    wrong = measure(blocks_GD[group.inverse_G][None], group)
    assert estimate_stabilisers(wrong, EXACT, flat=1e-9) != [h]


def projected(blocks_FGD: np.ndarray, subgroup: Subgroup) -> np.ndarray:
    """P_H D[g], the mean of D[gs] over s in H: D itself if H fixes it."""
    table_GG = subgroup.group.table_GG[:, list(subgroup.elements)]
    return blocks_FGD[:, table_GG].mean(axis=2)


@settings(deadline=None, max_examples=30)
@given(groups, st.integers(0, 10**6))
def test_fractions_are_those_of_the_projections(group: Dihedral, seed: int) -> None:
    blocks_FGD = np.random.default_rng(seed).normal(size=(3, len(group), 4))
    changing_FGD = centred(blocks_FGD)
    power_F = (changing_FGD**2).sum((1, 2))
    symmetry = measure(blocks_FGD, group)
    for h, fraction_F in zip(symmetry.subgroups, symmetry.fractions.T, strict=True):
        part_FGD = projected(changing_FGD, h)
        assert np.allclose(projected(part_FGD, h), part_FGD)  # a projection
        assert np.allclose((part_FGD**2).sum((1, 2)), fraction_F * power_F, atol=1e-9)
    for s in range(len(group)):
        r_F = (blocks_FGD * blocks_FGD[:, group.table_GG[:, s]]).sum((1, 2))
        assert np.allclose(autocorrelation(blocks_FGD, group)[:, s], r_F)


@settings(deadline=None, max_examples=30)
@given(groups, st.integers(0, 10**6))
def test_irreducible_parts_add_up_and_say_how_fast_a_pattern_turns(
    group: Dihedral, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    symmetry = measure(rng.normal(size=(2, len(group), 5)), group)
    assert np.allclose(sum(symmetry.irreps.values()), 1)
    assert np.allclose(symmetry.irreps["A1"], 1 - symmetry.variation)
    for j in range(1, (group.rotations + 1) // 2):
        # a direction turns with the image, its double angle twice as fast ...
        angle_G = j * 2 * np.pi * (np.arange(len(group)) % group.rotations) / group.rotations
        blocks_GD = np.stack([np.cos(angle_G), np.sin(angle_G)], axis=1)
        assert np.isclose(measure(blocks_GD[None], group).irreps[f"E{j}"][0], 1)


def test_each_class_by_a_picture_of_it() -> None:
    group, rng = Dihedral(8), np.random.default_rng(1)
    units = Units(rng)
    one, mirror, half = np.eye(2), reflection(45), turn(180)
    base = pattern(rng)
    pictures = {
        "chiral": base,
        "one reflection": symmetric(base, [one, mirror]),
        "half turn": symmetric(base, [one, half]),
        "both": symmetric(base, [one, mirror, half, mirror @ half]),
        "many turns": symmetric(base, [turn(90 * i) for i in range(4)]),
        "invariant": np.array([[0.0, 0.0, 1.0]]),
    }
    blocks_FGD = np.stack([units.orbit(points, group) for points in pictures.values()])
    stabilisers = estimate_stabilisers(measure(blocks_FGD, group), EXACT, flat=0.01)

    assert [class_of(h) for h in stabilisers] == list(pictures)
    assert class_counts(list(pictures)) == dict.fromkeys(
        ["invariant", "many turns", "both", "half turn", "one reflection", "chiral"], 1
    )


@pytest.mark.parametrize("reflections", [True, False])
def test_a_pose_conjugates_the_stabiliser(reflections: bool) -> None:
    group, rng = Dihedral(8, reflections), np.random.default_rng(2)
    units, base = Units(rng), symmetric(pattern(rng), [np.eye(2), turn(180)])
    for pose in range(len(group)):
        moved_GD = units.orbit(under(group.matrix_G22[pose], base), group)
        assert np.allclose(moved_GD, units.orbit(base, group)[group.table_GG[:, pose]])
        (found,) = estimate_stabilisers(measure(moved_GD[None], group), EXACT, flat=1e-9)
        assert found is not None and found.kind == "C2"


@settings(deadline=None)
@given(st.floats(0, 179.9), st.integers(0, 1000))
def test_the_axis_is_found_between_the_groups_axes(degrees: float, seed: int) -> None:
    """A bulge in a direction that is none of the group's, to a quarter of the step between axes."""
    group = Dihedral(16)
    direction_G = np.array(
        [
            np.arctan2(*(matrix @ [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])[::-1])
            for matrix in group.matrix_G22
        ]
    )
    rng = np.random.default_rng(seed)
    blocks_GD = np.exp(2 * np.cos(direction_G[:, None] - rng.uniform(0, 2 * np.pi, 20)))
    symmetry = measure(blocks_GD[None], group)
    (found,) = estimate_stabilisers(symmetry, {**EXACT, "D1": 0.8}, flat=0.01)
    angle = axis_angle(symmetry, 0, found)

    assert found is not None and found.kind == "D1" and angle is not None
    assert abs((angle - degrees + 90) % 180 - 90) < 11.25 / 4


def test_a_larger_subgroup_must_not_lose_what_a_smaller_one_keeps() -> None:
    """A curve with a faint opening is no line, though its blocks are .85 those of one; a noisy
    line of as small a share is."""
    group, rng = Dihedral(16), np.random.default_rng(0)
    angle_G = np.radians([directed(group, g, 0.0) for g in range(len(group))])
    odd, even = (np.stack([np.cos(j * angle_G), np.sin(j * angle_G)], axis=1) for j in (1, 2))
    curve_GD = np.concatenate([np.sqrt(0.85) * even, np.sqrt(0.15) * odd, np.zeros((32, 36))], 1)
    line_GD = np.concatenate([even, 0 * odd, rng.normal(0, 0.085, (32, 36))], axis=1)
    symmetry = measure(np.stack([curve_GD, line_GD]), group)
    limits = {h.kind: 0.75 for h in symmetry.subgroups} | {"C1": 0.0}
    fractions_F, _ = symmetry.of_kind("D2")
    found = estimate_stabilisers(symmetry, limits, 0.1)

    assert np.isclose(fractions_F[0], 0.85) and 0.75 < fractions_F[1] < 0.9
    assert [class_of(h) for h in found] == ["one reflection", "both"]


def test_the_null_is_what_chance_reaches() -> None:
    group, rng = Dihedral(8), np.random.default_rng(3)
    noise_FGD = rng.normal(size=(400, len(group), 6))
    null = null_of({"raw": noise_FGD, "relabelled": relabelled(noise_FGD, rng)}, group)
    limits = null.limits(0.95)

    assert limits["C1"] == 0
    best, _ = measure(rng.normal(size=(400, len(group), 6)), group).of_kind("D1")
    assert 0.9 < (best < limits["D1"]).mean() < 0.99
    assert np.isclose(null.rank("raw", "D1", np.array([limits["D1"]]))[0], 0.95, atol=0.06)
    assert null.limits(0.95, ["relabelled"])["D1"] <= limits["D1"]


def test_a_limit_holds_with_confidence_however_few_values_the_null_has() -> None:
    """In one null of twenty more than 5 % of draws pass; by the quantile itself it is in half."""
    rng = np.random.default_rng(0)
    over = {60: 0, 300: 0}
    for count in over:
        for _ in range(1000):
            drawn = np.sort(rng.random(count))  # of which a fraction 1 - limit passes
            over[count] += 1 - Null({"raw": {"D1": drawn}}).limits(0.95)["D1"] > 0.05
    assert max(over.values()) <= 70 and over[300] > 20


def test_relabelled_blocks_keep_all_but_the_group() -> None:
    group, rng = Dihedral(8), np.random.default_rng(4)
    points = symmetric(pattern(rng), [np.eye(2), turn(180)])
    blocks_FGD = np.repeat(Units(rng).orbit(points, group)[None], 50, axis=0)
    mixed_FGD = relabelled(blocks_FGD, rng)

    assert np.allclose(np.sort(mixed_FGD, axis=1), np.sort(blocks_FGD, axis=1))
    assert (measure(mixed_FGD, group).of_kind("C2")[0] < 0.9).mean() > 0.95


def test_latents_that_do_not_vary_are_invariant_without_a_warning() -> None:
    group = Dihedral(4)
    blocks_FGD = np.stack([np.ones((8, 3)), np.zeros((8, 3))])
    symmetry = measure(blocks_FGD, group)
    assert (symmetry.variation == 0).all() and (symmetry.fractions == 0).all()
    assert estimate_stabilisers(symmetry, EXACT, flat=0.05) == [None, None]
    assert np.allclose(cosines(blocks_FGD)[0], 1) and (cosines(blocks_FGD)[1] == 0).all()
    assert axis_angle(symmetry, 0, None) is None
