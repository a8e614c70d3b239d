"""The planted subject has the features it declares, in superposition and permuted by the group."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.inputs.procedural import dead_leaves
from tendril.harvest.recipes import demo as harvest_demo
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.models.sites.hooks import recording
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import Subject
from tendril.models.subjects.synthetic import planted_weights as rules
from tendril.models.subjects.synthetic.planted import (
    FEATURE_SITE,
    FEATURES,
    directions,
    families,
    permutations,
    planted_blocks,
    planted_subject,
)
from tendril.models.subjects.synthetic.planted_features import CLASSES, SITE, Feature
from tendril.study.measures.curve_stimuli import draw_curve
from tendril.study.measures.planted_recovery import Found, planted_truth, represented, score
from tendril.train.loop import train
from tendril.train.recipes import demo as train_demo

SIZE, CELL, PIXEL = 112, 6, 55  # cell i of mixed3b sees about pixel 8 i + 7
GROUP = Dihedral(24)
SPAN = rules.spans()


@pytest.fixture(scope="module")
def subject() -> Subject:
    return planted_subject()


def activations(subject: Subject, images_BCHW: Tensor, *sites: str) -> dict[str, Tensor]:
    modules = {site: subject.sites[site] for site in sites}
    with recording(subject.module, modules) as forward, torch.no_grad():
        return forward(subject.preprocess(images_BCHW))


def grey(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).float()[:, None].expand(-1, 3, -1, -1)


def leaves(seed: int, count: int, size: int) -> Tensor:
    images = np.stack([dead_leaves(seed, index, size) for index in range(count)])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


# --- the truth ---------------------------------------------------------------------------


def test_features_are_numbered_by_kind():
    assert len(FEATURES) == len(set(FEATURES)) == 110
    for kind, span in SPAN.items():
        assert {f.kind for f in FEATURES[span]} == {kind}
    assert list(CLASSES) == list(rules.SIZES)


def test_the_group_acts_on_features():
    assert Feature("curve", 30.0).transformed(GROUP, 1) == Feature("curve", 45.0)
    assert Feature("hook", 30.0, 1).transformed(GROUP, 24) == Feature("hook", 330.0, -1)
    assert Feature("line", 30.0).transformed(GROUP, 24 + 2) == Feature("line", 0.0)
    for group in (GROUP, Dihedral(12), Dihedral(8, reflections=False)):
        moved_FG = permutations(group)
        for a in (1, 5, len(group) - 1):
            for b in range(len(group)):  # T_a T_b i, b first
                assert np.array_equal(moved_FG[moved_FG[:, b], a], moved_FG[:, group.product(a, b)])


def test_stabilisers_are_those_of_the_classes():
    moved_FG = permutations(GROUP)
    order = {"curve": 2, "line": 4, "corner": 2, "circle": 48, "hook": 1}
    for number, feature in enumerate(FEATURES):
        assert (moved_FG[number] == number).sum() == order[feature.kind]
    assert np.bincount(families(GROUP)).tolist() == [24, 12, 24, 1, 1, 48]
    assert len(np.bincount(families(Dihedral(12)))) == 10  # each family splits in two


def test_blocks_hold_the_transformed_features():
    there_FD, blocks_FGD = directions(), planted_blocks(GROUP)
    assert blocks_FGD.shape == (110, 48, 96)
    assert np.array_equal(blocks_FGD[0, 3], there_FD[3])  # a curve turned by 45 degrees
    assert np.array_equal(directions("mixed3b")[:, 320:416], there_FD)
    assert not directions("mixed3b")[:, :320].any()
    with pytest.raises(ConfigError, match="mixed3b_5x5 or mixed3b"):
        directions("mixed4a")
    with pytest.raises(ConfigError, match="Set --rotations to 24"):
        permutations(Dihedral(16))


def test_more_features_than_channels_and_none_much_like_another():
    mixing_DF = rules.mixing()
    assert mixing_DF.shape == (96, 110) and mixing_DF.min() == 0
    assert np.allclose(np.linalg.norm(mixing_DF, axis=0), 1)
    cosine_FF = mixing_DF.T @ mixing_DF - np.eye(110)
    curves = rules.DIRECTIONS.tolist()
    for first, second in rules.DOUBLES:
        pair = (curves.index(first), curves.index(second))
        assert cosine_FF[pair] < 0.45
        cosine_FF[pair] = cosine_FF[pair[::-1]] = 0
    assert cosine_FF.max() <= 0.2 + 1e-9
    alone = (mixing_DF > 0.9).sum(axis=1)
    assert alone.sum() == len(rules.NEURONS)


def test_channels_that_share_curves_hold_curves_far_apart():
    curves_DF = rules.mixing()[len(rules.NEURONS) :, SPAN["curve"]]
    curves_DF = curves_DF[curves_DF.any(axis=1)]
    assert ((curves_DF > 0).sum(axis=1) >= 2).all()
    resultant = np.abs(curves_DF @ np.exp(1j * np.deg2rad(rules.DIRECTIONS))) / curves_DF.sum(1)
    assert resultant.max() < 0.75  # a curve detector has 0.85


# --- the network -------------------------------------------------------------------------


def test_the_subject_is_the_same_each_time_and_says_what_it_is(subject: Subject):
    again = load_subject("planted")
    assert again.identity == subject.identity and again.name == "planted"
    assert not any(p.requires_grad for p in subject.module.parameters())
    for parameter in subject.module.parameters():
        steps = parameter.double() * 2**20
        assert torch.equal(steps, steps.round())


def test_the_site_is_the_features_mixed(subject: Subject):
    acts = activations(subject, leaves(3, 2, 160), FEATURE_SITE, SITE, f"{SITE}_pre_relu")
    features = acts[FEATURE_SITE]
    mixed = torch.einsum("fd,bfhw->bdhw", torch.from_numpy(directions()).float(), features)
    torch.testing.assert_close(acts[SITE], mixed, rtol=1e-4, atol=1e-3)
    assert torch.equal(acts[SITE], acts[f"{SITE}_pre_relu"])


def test_without_padding_a_patch_gives_the_cell_in_its_middle(subject: Subject):
    assert subject.unpadded is not None
    image = grey([draw_curve(30.0, 20.0, "line", SIZE, (PIXEL, PIXEL))])
    first = PIXEL - 45
    patch = image[:, :, first : first + 91, first : first + 91]
    whole = activations(subject, image, SITE)[SITE][:, :, CELL, CELL]
    sites = {SITE: subject.sites[SITE]}
    with recording(subject.unpadded, sites) as forward, torch.no_grad():
        alone = forward(subject.preprocess(patch))[SITE]
    assert alone.shape == (1, 96, 1, 1) and whole.max() > 0
    torch.testing.assert_close(alone[:, :, 0, 0], whole, rtol=1e-4, atol=1e-3)


def test_a_curve_excites_the_planted_feature_and_leaves_its_neighbours(subject: Subject):
    images = grey([draw_curve(a, 20.0, "line", SIZE, (PIXEL, PIXEL)) for a in rules.DIRECTIONS])
    fired = activations(subject, images, FEATURE_SITE)[FEATURE_SITE][:, SPAN["curve"], CELL, CELL]
    assert torch.equal(fired.argmax(dim=1), torch.arange(24))
    height = fired.diagonal()
    assert height.min() > 30 and height.min() > 0.7 * height.max()
    assert (fired - torch.diag(height)).max() < 0.1 * height.min()


def test_turns_by_fifteen_degrees_and_reflections_permute_what_shapes_excite(subject: Subject):
    """Shapes are redrawn at each angle; the pixel grid costs 2 to 10 % of the variance."""

    def hook(angle: float, hand: int) -> np.ndarray:
        y, x = np.mgrid[:SIZE, :SIZE] - float(PIXEL)
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        u, v = x * cos + y * sin, hand * (y * cos - x * sin)
        arc = np.where(u + 20.0 > 0, np.abs(np.hypot(u + 20.0, v) - 20.0), np.abs(v - 20.0))
        return 1 - np.clip(1.5 - np.where(v > 0, arc, np.abs(u)), 0, 1)

    images = grey([hook(a, hand) for hand in rules.HANDS for a in rules.DIRECTIONS])
    fired_BF = activations(subject, images, FEATURE_SITE)[FEATURE_SITE][:, :, CELL, CELL].numpy()
    moved_FG = permutations(GROUP)
    # stimulus number (hand, k) is T_g of the first, with g = (0, k) or (1, k)
    aligned_GF = np.stack([fired_BF[g][moved_FG[:, g]] for g in range(len(GROUP))])
    mean_F = aligned_GF.mean(axis=0)
    assert FEATURES[int(mean_F.argmax())].kind == "hook" and mean_F.max() > 30
    residual = ((aligned_GF - mean_F) ** 2).sum() / (aligned_GF**2).sum()
    assert residual < 0.1
    wrong_GF = np.stack([fired_BF[g][moved_FG[:, GROUP.inverse(g)]] for g in range(len(GROUP))])
    assert ((wrong_GF - wrong_GF.mean(axis=0)) ** 2).sum() / (wrong_GF**2).sum() > 0.5


def test_features_are_sparse_and_of_one_size_on_dead_leaves(subject: Subject):
    acts = activations(subject, leaves(11, 16, subject.input_size), FEATURE_SITE)[FEATURE_SITE]
    acts_FN = acts.permute(1, 0, 2, 3).flatten(1).numpy()
    on_FN = acts_FN > 0
    assert on_FN.mean(axis=1).min() > 0.001 and on_FN.mean(axis=1).max() < 0.05
    assert 1 < on_FN.sum(axis=0).mean() < 3
    for kind, span in SPAN.items():
        assert 6 < np.sqrt((acts_FN[span][on_FN[span]] ** 2).mean()) < 14, kind


@pytest.mark.slow
def test_a_dictionary_finds_what_is_in_superposition(tmp_path: Path):
    """It recovers at least 22 of 24 orientations, where single channels have ten."""
    home = str(tmp_path)
    changes = {"subject": "planted", "sites": (SITE,), "limit": 1000, "home": home}
    harvest(dataclasses.replace(harvest_demo(), **changes))
    run = train(
        dataclasses.replace(train_demo(), home=home, latents=192, k=6, steps=2500, log_every=500)
    )
    dictionary = load_dictionary(run.run)
    W_SD = dictionary.W_dec.detach().numpy()
    acts = activations(planted_subject(), leaves(21, 200, 160), SITE)[SITE]
    z_NS = dictionary.encode(acts.permute(0, 2, 3, 1).flatten(0, 2))
    live_S = (z_NS > 0).float().mean(dim=0).numpy() > 1e-3
    truth = planted_truth(None, SITE)
    found = Found(W_SD[live_S][:, None])
    assert represented(found, truth)[SPAN["curve"]].sum() >= 22
    got = score(found, truth)
    assert got.precision >= 0.9 and got.recall >= 0.9 and got.match >= 0.95
    assert got.match_chance < 0.6
