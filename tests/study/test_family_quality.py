"""Measures of families on codes, classes and assignments whose right values are known."""

import numpy as np
import pytest
import torch

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder, initialised_families
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.measures.family_quality import (
    NONE,
    Members,
    assigned,
    class_agreement,
    family_quality,
    members_of,
    pose_error,
    silhouette,
    stability,
    tied_members_of,
)
from tendril.study.measures.latent_families import LatentFamily, alignment, find_families
from tendril.study.measures.orbit_codes import is_single, orbit_codes, orbit_fvu
from tendril.study.measures.subgroups import Subgroup

GROUP = Dihedral(8)
CURVE = Subgroup(GROUP, 1, axis=0)
LINE = Subgroup(GROUP, 2, axis=0)
KINDS = 3  # patterns of the planted orbits: one direction a turn, at units of their own


def family(*members: int, stabiliser: Subgroup | None = CURVE) -> LatentFamily:
    """Member i of it is the head turned by i steps."""
    poses = tuple(GROUP.element(0, i) for i in range(len(members)))
    return LatentFamily(GROUP, members[0], members, poses, (1.0,) * len(members), stabiliser)


def planted_orbits(each: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Orbits of patterns that one reflection fixes, and the number of each one's pattern: unit
    8 p + d is active if pattern p points in direction d."""
    x = np.zeros((KINDS * each, len(GROUP), 8 * KINDS), np.float32)
    for n in range(len(x)):
        for g in range(len(GROUP)):
            reflected, turns = GROUP.parts(g)
            direction = ((-n if reflected else n) + turns) % 8
            x[n, g, 8 * (n // each) + direction] = 1
    return x, np.arange(len(x)) // each


def directions_sae() -> SAE:
    """A latent for each unit of the planted orbits."""
    sae = SAE(8 * KINDS, 8 * KINDS, Sparsity("relu", 0), pre_bias=False)
    with torch.no_grad():
        for weight in (sae.W_enc, sae.W_dec):
            weight.copy_(torch.eye(8 * KINDS))
    return sae


def planted_families() -> list[LatentFamily]:
    return [family(*range(8 * p, 8 * p + 8)) for p in range(KINDS)]


def quality(families: list[LatentFamily], classes: list[str], units: np.ndarray | None = None):
    x, truth = planted_orbits()
    z = orbit_codes(directions_sae(), x, GROUP)
    members = members_of(families, np.arange(z.shape[2]), z.shape[2])
    likeness, _ = alignment(x, x, GROUP)
    units = truth if units is None else units
    return family_quality(z, members, families, classes, likeness, units, GROUP)


def test_planted_families_have_the_best_value_of_every_measure() -> None:
    found, assigned_N = quality(planted_families(), ["one reflection"] * 24)
    assert (assigned_N == planted_orbits()[1]).all()
    assert found.families == KINDS and found.members == 1
    assert found.silhouette == pytest.approx(1, abs=1e-5)
    assert found.silhouette_chance < 0.1
    assert found.agreement == found.agreement_chance == 1
    assert found.units == 1
    assert found.pose_error == pytest.approx(0, abs=1e-4) and found.pose_chance == 90


def test_families_of_latents_that_do_not_belong_together_are_worse_in_every_measure() -> None:
    mixed = [family(*range(p, 24, 3)) for p in range(3)]
    classes = ["one reflection"] * 12 + ["chiral"] * 12
    found, _ = quality(mixed, classes)
    assert found.silhouette < 0.7 and found.agreement < 0.6
    assert found.units < 0.6 and found.pose_error > 20


def test_single_latents_decode_no_pose() -> None:
    found, _ = quality([family(s) for s in range(24)], ["one reflection"] * 24)
    assert found.pose_error == pytest.approx(90) == found.pose_chance
    assert found.agreement == 0 and found.members == 0


def test_a_pattern_with_a_half_turn_is_decoded_modulo_180_degrees() -> None:
    angle_NA = 45 * np.arange(8)[None] + np.array([[0], [90]])
    z = np.zeros((2, 16, 4), np.float32)
    for n in range(2):
        for a in range(8):
            z[n, a, angle_NA[n, a] // 45 % 4] = 1
    four = family(0, 1, 2, 3, stabiliser=LINE)
    members = members_of([four], np.arange(4), 4)
    error, chance = pose_error(z, members, np.zeros(2, np.int64), GROUP)
    assert error == pytest.approx(0, abs=1e-4) and chance == 45
    assert pose_error(np.zeros_like(z), members, np.zeros(2, np.int64), GROUP) == (45, 45)
    round_one = members_of([family(0, stabiliser=None)], np.arange(1), 4)
    assert pose_error(z, round_one, np.zeros(2, np.int64), GROUP) == (90, 90)
    assert pose_error(z, members, np.full(2, NONE), GROUP) == (90, 90)


def test_an_orbit_without_an_active_member_is_of_no_family() -> None:
    z = np.zeros((3, 16, 3), np.float32)
    z[0, 3, 0], z[1, :, 1], z[2, :, 2] = 5, 1, 9
    members = Members(np.array([0, 1, NONE]), np.zeros(3), np.array([360.0, 360.0]))
    assert assigned(z, members).tolist() == [0, 1, NONE]


def test_silhouettes_by_hand() -> None:
    """Distances 0 within and 1 between give 1; with labels across them, -1/2 or less."""
    likeness = np.kron(np.eye(2), np.ones((2, 2)))
    assert silhouette(likeness, np.array([0, 0, 1, 1]))[0] == 1
    assert silhouette(likeness, np.array([0, 1, 0, 1]))[0] == pytest.approx(-0.5)
    assert silhouette(likeness, np.zeros(4, np.int64)) == (0, 0)
    assert silhouette(likeness, np.arange(4)) == (0, 0)


def test_class_agreement_by_hand() -> None:
    families = [family(0, 1, 2), family(3), family(4, 5)]
    classes = ["a", "a", "b", "b", "a", "b"]
    same, chance, within = class_agreement(families, classes)
    assert same == pytest.approx(1 / 3)  # of the members 1, 2 and 5
    assert chance == pytest.approx(2 * 3 * 2 / (6 * 5)) and within == pytest.approx(5 / 6)


def test_stability_is_of_assignments_whatever_their_numbers() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 5, 400)
    assert stability([one, (one + 2) % 5]) == [1]
    pairs = stability([one, rng.integers(0, 5, 400), rng.integers(0, 5, 400)])
    assert len(pairs) == 3 and max(map(abs, pairs)) < 0.05
    assert stability([one]) == []


def test_codes_in_every_pose_are_those_of_the_moved_orbit() -> None:
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    x = rng.normal(size=(5, len(GROUP), 6)).astype(np.float32)
    tied = initialised_families(EquivariantCrosscoder(GROUP, 6, 3, 2), generator, torch.zeros(6))
    untied = SAE(6 * len(GROUP), 10, Sparsity("topk", 3), pre_bias=True)
    single = SAE(6, 10, Sparsity("topk", 3), pre_bias=True)
    with torch.no_grad():
        for sae in (untied, single):
            sae.W_enc.copy_(torch.randn(sae.W_enc.shape, generator=generator))
            sae.W_dec.copy_(sae.W_enc.T)
    assert is_single(single, 6) and not is_single(untied, 6) and not is_single(tied, 6)
    for dictionary in (tied, untied, single):
        z = orbit_codes(dictionary, x, GROUP)
        norms = dictionary.W_dec.detach().flatten(1).norm(dim=1).numpy()
        norms = np.repeat(norms, z.shape[2] // len(norms))
        for a in (0, 3, 11):
            moved = torch.from_numpy(x[:, GROUP.table_GG[:, a]])
            if dictionary is single:
                moved = moved[:, 0]
            elif dictionary is untied:
                moved = moved.flatten(1)
            wanted = dictionary.encode(moved).flatten(1).detach().numpy() * norms
            np.testing.assert_allclose(z[:, a], wanted, atol=1e-5)


def test_copies_of_tied_families_decode_the_pose() -> None:
    """By construction: copies of the head, and of a duplicate of it in another pose."""
    x, _ = planted_orbits()
    blocks = np.concatenate([x[:1], x[3:4], x[8:9]])
    tied = EquivariantCrosscoder(GROUP, x.shape[2], 3, 1)
    with torch.no_grad():
        for weight in (tied.W_enc, tied.W_dec):
            weight.copy_(torch.from_numpy(blocks))
    stabilisers = [CURVE] * 3
    families = find_families(
        *alignment(blocks, blocks, GROUP), 0.9, GROUP, stabilisers, [0.0, 135.0, 0.0]
    )
    assert sorted(len(f.members) for f in families) == [1, 2]
    members = tied_members_of(families, np.arange(3), 3, GROUP)
    z = orbit_codes(tied, x[:16], GROUP)
    error, chance = pose_error(z, members, assigned(z, members), GROUP)
    assert error == pytest.approx(0, abs=1e-3) and chance == 90


def test_fvu_of_orbits_by_hand() -> None:
    x, _ = planted_orbits()
    sae = directions_sae()
    assert orbit_fvu(sae, x) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        sae.W_dec[:8] = 0  # the first of three patterns is lost
    lost = (x[..., :8] ** 2).sum() / ((x - x.mean(axis=(0, 1))) ** 2).sum()
    assert orbit_fvu(sae, x) == pytest.approx(lost)
    untied = SAE(x[0].size, 1, Sparsity("topk", 1), pre_bias=True)
    with torch.no_grad():
        untied.b_dec.copy_(torch.from_numpy(x.mean(axis=0).ravel()))
    assert orbit_fvu(untied, x) == pytest.approx(1)
