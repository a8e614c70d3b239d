"""The subjects of continuous orientation have the features that they declare."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.inputs.procedural import dead_leaves
from tendril.models.sites.hooks import recording
from tendril.models.subjects.load import PLANTED, load_subject
from tendril.models.subjects.subject import Subject
from tendril.models.subjects.synthetic.planted import FEATURE_SITE
from tendril.models.subjects.synthetic.planted_features import SITE
from tendril.models.subjects.synthetic.planted_networks import NAMES, features_of
from tendril.models.subjects.synthetic.planted_rings import PLANS
from tendril.models.subjects.synthetic.planted_rings_weights import (
    FILTERS,
    HARD,
    TEST,
    Plan,
    mixing,
    rings,
    total,
)
from tendril.study.measures.curve_stimuli import draw_curve

SIZE, CELL, PIXEL = 112, 6, 55  # cell i of mixed3b sees about pixel 8 i + 7
EACH = pytest.mark.parametrize("plan", [HARD, TEST], ids=["hard", "test"])


@pytest.fixture(scope="module")
def subjects() -> dict[str, Subject]:
    return {name: load_subject(name) for name in PLANS}


def activations(subject: Subject, images_BCHW: Tensor, *sites: str) -> dict[str, Tensor]:
    modules = {site: subject.sites[site] for site in sites}
    with recording(subject.module, modules) as forward, torch.no_grad():
        return forward(subject.preprocess(images_BCHW))


def grey(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).float()[:, None].expand(-1, 3, -1, -1)


def leaves(count: int) -> Tensor:
    images = np.stack([dead_leaves(7, index, 160) for index in range(count)])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


def test_names_are_those_that_load(subjects: dict[str, Subject]) -> None:
    assert PLANTED == NAMES
    digests = {subject.identity["weights"] for subject in subjects.values()}
    assert len(digests) == len(PLANS)
    for name, subject in subjects.items():
        assert subject.name == subject.identity["name"] == name


@EACH
def test_families_are_rings_whichever_turns_a_group_has(plan: Plan) -> None:
    planted = features_of(plan.name)
    kinds = [f.kind for f in planted.features]
    assert len(planted.features) == total(plan) == len(set(planted.features))
    sizes = {"curve": 96, "line": 48, "corner": 96, "circle": 1, "hook": 192}
    expected = [sizes["curve"]] * len(plan.curves) + [48] + [96] * bool(plan.corner)
    expected += [1] * len(plan.circles) + [192]
    for group in (Dihedral(16), Dihedral(24), Dihedral(32)):
        family_F = planted.families(group)
        assert np.bincount(family_F).tolist() == expected
        moved_FG = planted.permutations(group)
        assert np.array_equal(family_F[moved_FG], np.repeat(family_F[:, None], len(group), axis=1))
    assert np.bincount(planted.families(Dihedral(16, reflections=False))).tolist()[-2:] == [96, 96]
    assert kinds.count("curve") == 96 * len(plan.curves)
    with pytest.raises(ConfigError, match="Set --rotations to 96, 48, 32"):
        planted.permutations(Dihedral(20))


@EACH
def test_directions_are_shared_up_to_the_stated_cosine(plan: Plan) -> None:
    """Below 0.8, from which a latent represents a feature. Neighbours in a ring are alike."""
    planted = features_of(plan.name)
    directions_FD = planted.directions()
    assert directions_FD.min() >= 0
    assert np.allclose(np.linalg.norm(directions_FD, axis=1), 1)
    cosine_FF = directions_FD @ directions_FD.T
    family_F = planted.families(Dihedral(16, reflections=False))
    other_FF = family_F[:, None] != family_F
    most = {"planted-hard": (0.68, 0.70), "planted-test": (0.61, 0.64)}[plan.name]
    assert most[0] < cosine_FF[other_FF].max() < most[1]
    for ring in rings(plan):
        if ring.kind != "circle":
            first = ring.rows.start
            assert cosine_FF[first, first + 2] > 0.93  # 7.5 degrees
            assert 0.7 < cosine_FF[first, first + 4] < 0.92  # 15 degrees
            assert cosine_FF[first, first + 16] < 0.5  # 60 degrees
    noise = mixing(plan)[:, total(plan) :].T
    assert noise.shape == (FILTERS, 96)
    assert np.allclose(np.linalg.norm(noise, axis=1), plan.noise)


@EACH
def test_the_site_is_features_and_noise_mixed(plan: Plan, subjects: dict[str, Subject]) -> None:
    acts = activations(subjects[plan.name], leaves(1), FEATURE_SITE, SITE)
    mixed = torch.from_numpy(mixing(plan)).float()
    expected = torch.einsum("df,bfhw->bdhw", mixed, acts[FEATURE_SITE])
    torch.testing.assert_close(acts[SITE], expected, rtol=1e-4, atol=1e-3)


@EACH
def test_orientation_is_continuous(plan: Plan, subjects: dict[str, Subject]) -> None:
    """Arcs between the reference orientations: the circular mean of the responding curves follows
    them, and the part that curves write points along the nearest reference direction."""
    angles = np.arange(0.0, 360.0, 8.7)
    radius = plan.curves[1] if plan is HARD else plan.curves[0]
    images = grey([draw_curve(a, radius, "line", SIZE, (PIXEL, PIXEL)) for a in angles])
    fired = activations(subjects[plan.name], images, FEATURE_SITE)[FEATURE_SITE]
    ring = next(r for r in rings(plan) if r.radius == radius)
    fired_BF = fired[:, ring.rows, CELL, CELL].numpy()
    assert ((fired_BF > 0).sum(axis=1) >= 3).all()
    mean_B = np.rad2deg(np.angle(fired_BF @ np.exp(1j * np.deg2rad(ring.angles))))
    error_B = np.abs((mean_B - angles + 180) % 360 - 180)
    assert error_B.max() < 3.0
    written_BD = fired_BF @ mixing(plan)[:, ring.rows].T
    nearest_BD = mixing(plan)[:, ring.rows].T[np.rint(angles / 3.75).astype(int) % 96]
    cosine_B = (written_BD * nearest_BD).sum(axis=1) / np.linalg.norm(written_BD, axis=1)
    assert cosine_B.min() > 0.97


@EACH
def test_curves_respond_in_proportions_that_change_with_the_radius(
    plan: Plan, subjects: dict[str, Subject]
) -> None:
    radii = np.array([10.0, 16.0, 24.0, 36.0, 48.0])
    images = grey([draw_curve(45.0, r, "line", SIZE, (PIXEL, PIXEL)) for r in radii])
    fired = activations(subjects[plan.name], images, FEATURE_SITE)[FEATURE_SITE]
    curves = [ring for ring in rings(plan) if ring.kind == "curve"]
    sums_BR = np.stack([fired[:, c.rows, CELL, CELL].sum(dim=1).numpy() for c in curves], axis=1)
    middle_B = sums_BR @ np.log([c.radius for c in curves]) / sums_BR.sum(axis=1)
    assert (np.diff(middle_B) > 0).all()


@EACH
def test_all_rings_respond_often_enough_to_be_learned(
    plan: Plan, subjects: dict[str, Subject]
) -> None:
    acts = activations(subjects[plan.name], leaves(24), FEATURE_SITE)[FEATURE_SITE]
    acts_FN = acts.permute(1, 0, 2, 3).flatten(1).numpy()
    count = total(plan)
    for ring in rings(plan):
        sum_N = acts_FN[ring.rows].sum(axis=0)
        assert 0.01 < (sum_N > 0).mean() < 0.45, ring
        assert 6 < np.sqrt((sum_N[sum_N > 0] ** 2).mean()) < 20, ring
    whole = mixing(plan) @ acts_FN
    noise = mixing(plan)[:, count:] @ acts_FN[count:]
    fraction = noise.var(axis=1).sum() / whole.var(axis=1).sum()
    expected = {"planted-hard": 0.105, "planted-test": 0.127}[plan.name]
    assert fraction == pytest.approx(expected, abs=0.03)
