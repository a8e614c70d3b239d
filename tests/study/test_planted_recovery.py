"""Scores of latents against planted features, on cases with a known answer."""

import numpy as np
import pytest

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.study.measures.planted_recovery import (
    Found,
    PlantedTruth,
    cosines,
    planted_truth,
    represented,
    score,
)

GROUP = Dihedral(12)


@pytest.fixture(scope="module")
def truth() -> PlantedTruth:
    return planted_truth(GROUP, "mixed3b_5x5")


def perfect(truth: PlantedTruth, chosen: np.ndarray) -> Found:
    return Found(
        blocks=3.0 * truth.blocks[chosen],
        classes=[truth.classes[p] for p in chosen],
        orientations=truth.orientations[chosen],
        labels=truth.families[chosen],
    )


def one_a_family(truth: PlantedTruth) -> np.ndarray:
    return np.array([np.flatnonzero(truth.families == f)[-1] for f in np.unique(truth.families)])


def test_what_is_right_scores_one_whatever_its_scale(truth: PlantedTruth):
    got = score(perfect(truth, np.arange(len(truth.blocks))), truth)
    assert got.precision == got.recall == got.family_recall == 1
    assert got.match == pytest.approx(1) and got.match_latents == pytest.approx(1)
    assert got.orientation_error == 0 and got.class_accuracy == 1
    assert got.nmi == pytest.approx(1) and got.ari == pytest.approx(1)
    assert got.match_chance < 0.6 and got.nmi_chance is not None and got.nmi_chance < 0.3
    assert got.class_chance is not None and got.class_chance < 0.6
    assert got.orientation_chance == 90


def test_any_pose_of_a_family_will_do(truth: PlantedTruth):
    chosen = one_a_family(truth)
    got = score(perfect(truth, chosen), truth)
    assert got.family_recall == 1 and got.match == pytest.approx(1)
    assert got.recall == len(chosen) / len(truth.blocks)
    posed = Found(truth.blocks[chosen][:, GROUP.table_GG[:, 17]])  # copies h = 17
    assert score(posed, truth).match == pytest.approx(1)


def test_noise_represents_nothing(truth: PlantedTruth):
    noise = np.random.default_rng(0).random((40, *truth.blocks.shape[1:]))
    got = score(Found(noise, ["both"] * 40, np.zeros(40), np.zeros(40, int)), truth)
    assert got.precision == got.recall == got.family_recall == 0
    assert got.match < 0.6 and abs(got.match - got.match_chance) < 0.05
    assert got.figures()["nmi"] is None and got.figures()["class_accuracy"] is None


def test_a_mixture_of_neighbours_represents_neither(truth: PlantedTruth):
    mixed = truth.blocks[:1] + truth.blocks[1:2]
    assert score(Found(mixed), truth).precision == 0
    assert 0.65 < score(Found(mixed), truth).match_latents < 0.8
    leaning = truth.blocks[:1] + 0.3 * truth.blocks[1:2]
    assert np.flatnonzero(represented(Found(leaning), truth)).tolist() == [0]


def test_blocks_in_the_order_of_another_group_do_not_match(truth: PlantedTruth):
    order = np.random.default_rng(1).permutation(len(GROUP))
    chosen = np.arange(24)
    shuffled = Found(truth.blocks[chosen][:, order])
    assert score(shuffled, truth).match_latents < 0.8
    with pytest.raises(ConfigError, match="same group and site"):
        score(Found(truth.blocks[:, :5]), truth)


def test_orientations_count_modulo_what_fixes_the_feature(truth: PlantedTruth):
    line, curve, circle = 24, 3, 60
    chosen = np.array([line, curve, circle])
    claimed = truth.orientations[chosen] + np.array([180.0, 10.0, 0.0])
    got = score(Found(truth.blocks[chosen], orientations=claimed), truth)
    assert got.orientation_error == pytest.approx(5)  # the median of 0 and 10; circles have none
    claimed[:] = np.nan
    wrong = score(Found(truth.blocks[chosen], orientations=claimed), truth)
    assert wrong.orientation_error == pytest.approx((90 + 180) / 2)


def test_a_family_is_right_when_most_of_its_latents_are(truth: PlantedTruth):
    chosen = np.array([0, 2, 4, 60])  # three curves of one family, a circle
    right, wrong = "one reflection", "chiral"
    for classes, accuracy in (
        ([right, right, wrong, "invariant"], 1.0),
        ([right, wrong, wrong, "invariant"], 0.5),
        ([right, wrong, "both", "both"], 0.0),
    ):
        found = Found(truth.blocks[chosen], classes=classes)
        assert score(found, truth).class_accuracy == accuracy


def test_labels_that_lump_or_split_lose(truth: PlantedTruth):
    everything = np.arange(len(truth.blocks))

    def labelled(labels: np.ndarray) -> tuple[float, float]:
        got = score(Found(truth.blocks, labels=labels), truth)
        assert got.nmi is not None and got.ari is not None
        return got.nmi, got.ari

    assert labelled(np.zeros(len(everything), int)) == (0, 0)
    nmi, ari = labelled(np.full(len(everything), -1))  # none in a family: each alone
    assert 0.3 < nmi < 0.8 and ari == pytest.approx(0)
    merged = np.where(truth.families == truth.families[0], truth.families[1], truth.families)
    assert 0.7 < labelled(merged)[0] < 1


def test_without_a_group_directions_are_compared():
    truth = planted_truth(None, "mixed3b")
    assert truth.blocks.shape == (110, 1, 480) and len(np.unique(truth.families)) == 6
    got = score(Found(truth.blocks[:24]), truth)
    assert got.recall == 24 / 110 and got.family_recall == 1 / 6 and got.precision == 1


def test_nothing_found_is_no_error(truth: PlantedTruth):
    nothing = Found(truth.blocks[:0], [], np.zeros(0), np.zeros(0, int))
    got = score(nothing, truth)
    assert got.recall == 0 and np.isnan(got.precision) and got.figures()["precision"] is None


def test_families_that_are_missed_count_too(truth: PlantedTruth):
    """Two of ten families, without a fault: what is over those found says 1."""
    chosen = np.flatnonzero(np.isin(truth.families, np.unique(truth.families)[:2]))
    got = score(perfect(truth, chosen), truth)
    assert got.nmi == pytest.approx(1) and got.ari == pytest.approx(1)
    assert got.class_accuracy == 1 and got.class_accuracy_all == 0.2
    assert got.family_recall == 0.2
    assert got.ari_all is not None and 0 < got.ari_all < 0.4
    whole = score(perfect(truth, np.arange(len(truth.blocks))), truth)
    assert whole.ari_all == pytest.approx(1) and whole.class_accuracy_all == 1
    lumped = Found(truth.blocks, labels=np.zeros(len(truth.blocks), int))
    assert score(lumped, truth).ari_all == pytest.approx(0)
    nothing = Found(truth.blocks[:0], [], np.zeros(0), np.zeros(0, int))
    assert score(nothing, truth).ari_all == score(nothing, truth).class_accuracy_all == 0


@pytest.mark.parametrize("name", ["planted-hard", "planted-test"])
def test_a_family_of_continuous_orientation_is_one_whichever_latents_tile_it(name: str):
    """Latents every 15 degrees represent all orientations of their ring, and no other ring."""
    group = Dihedral(16)
    truth = planted_truth(group, "mixed3b_5x5", name)
    rings = len(np.unique(truth.families))
    turning = np.isfinite(truth.orientations)
    tiles = np.flatnonzero(~turning | (truth.orientations % 15 == 0))
    got = score(perfect(truth, tiles), truth)
    assert got.precision == got.recall == got.family_recall == got.class_accuracy_all == 1
    assert got.ari_all == pytest.approx(1) and got.nmi == pytest.approx(1)
    assert got.orientation_error == 0
    assert got.match_chance < 0.8
    assert truth.blocks.shape[1:] == (32, 96)
    assert rings == {"planted-hard": 8, "planted-test": 5}[name]
    one = np.flatnonzero((truth.families == 0) & (truth.orientations == 15))
    there = np.flatnonzero(represented(Found(truth.blocks[one]), truth))
    around = np.abs(truth.orientations[there] - 15)
    assert (truth.families[there] == 0).all() and 2 < len(there) < 10 and around.max() < 20
    other = np.flatnonzero((truth.families == 1) & (truth.orientations == 15))
    blend = truth.blocks[one] + 0.9 * truth.blocks[other]
    assert cosines(blend, truth.blocks[other]) > 0.8, "it is near both"
    there = np.flatnonzero(represented(Found(blend), truth))
    assert (truth.families[there] == 0).all(), "but represents the one that it is nearer to"
