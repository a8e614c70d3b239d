"""A run of the planted features scores fully, and one of shuffled blocks does not."""

from dataclasses import replace

import numpy as np
import pytest

from tendril.data.group.dihedral import Dihedral
from tendril.models.subjects.synthetic.planted import FEATURES, families, planted_blocks
from tendril.models.subjects.synthetic.planted_features import SITE
from tendril.models.subjects.synthetic.planted_networks import features_of
from tendril.study.measures.planted_scores import planted_scores
from tendril.study.measures.symmetry_analysis import SymmetryAnalysis, analyse_blocks
from tendril.study.measures.symmetry_thresholds import SymmetryThresholds
from tendril.study.symmetry.tables import planted_table

GROUP = Dihedral(12)
FIRST = np.unique(families(GROUP), return_index=True)[1]  # a feature of each family


def analysis(name: str, blocks_FGD: np.ndarray, tied: bool = False) -> SymmetryAnalysis:
    anchors_MGD = np.random.default_rng(0).random((40, len(GROUP), blocks_FGD.shape[2]))
    fires = np.ones(len(blocks_FGD))
    inputs = np.arange(40)
    limits = SymmetryThresholds()
    return analyse_blocks(name, blocks_FGD, fires, GROUP, anchors_MGD, inputs, limits, tied=tied)


@pytest.fixture(scope="module")
def planted_FGD() -> np.ndarray:
    return planted_blocks(GROUP)[FIRST]


def test_what_was_planted_scores_full_and_a_shuffled_control_nothing(
    planted_FGD: np.ndarray,
) -> None:
    shuffled_FGD = np.random.default_rng(1).permuted(planted_FGD, axis=1)
    ours, control = analysis("ours", planted_FGD), analysis("control", shuffled_FGD)
    true = [FEATURES[i].orientation for i in FIRST]
    found = planted_scores("planted", SITE, ours, true, [control])
    assert found is not None
    figures = found.figures()
    assert figures["ours"]["match"] == pytest.approx(1.0, abs=1e-6)
    assert figures["ours"]["precision"] == figures["ours"]["family_recall"] == 1
    assert figures["ours"]["class_accuracy"] == 1
    assert figures["ours"]["orientation_error"] == 0
    assert figures["control"]["family_recall"] < 0.5  # circles look alike in any order
    kinds = [text.partition(",")[0] for text in found.represents]
    assert kinds == [FEATURES[i].kind for i in FIRST]
    table = planted_table(found)
    assert [row["run"] for row in table["rows"]] == ["ours", "control"]
    assert all(len(row["cells"]) == len(table["heads"]) for row in table["rows"])
    assert figures["ours"]["curves"] == 2, "one of each family of D_12; not tied, so no others"


def test_wrong_orientations_show(planted_FGD: np.ndarray) -> None:
    ours = analysis("ours", planted_FGD)
    turned = [None if (a := FEATURES[i].orientation) is None else a + 30 for i in FIRST]
    found = planted_scores("planted", SITE, ours, turned, [])
    assert found is not None
    assert found.figures()["ours"]["orientation_error"] == pytest.approx(30)


def test_families_of_a_tied_run_are_scored_by_all_their_copies(planted_FGD: np.ndarray) -> None:
    ours = analysis("ours", planted_FGD, tied=True)
    found = planted_scores("planted", SITE, ours, [None] * len(FIRST), [])
    assert found is not None
    figures = found.figures()["ours"]
    assert figures["nmi"] == pytest.approx(1.0)
    assert figures["nmi_chance"] < 0.2, "of representatives alone it would be 1"
    assert figures["curves"] == 24, "a copy points everywhere that a family of D_12 does"
    assert figures["recall"] == 1, "copies count"
    halves = analysis("halves", np.concatenate([planted_FGD, planted_FGD]), tied=True)
    halves = replace(halves, families=ours.families)  # as if copies of the others had none
    found = planted_scores("planted", SITE, halves, [None] * 2 * len(FIRST), [])
    assert found is not None
    assert found.figures()["halves"]["nmi"] < 0.9


def test_nothing_was_planted_elsewhere(planted_FGD: np.ndarray) -> None:
    assert planted_scores("inceptionv1", SITE, analysis("ours", planted_FGD), [], []) is None


@pytest.mark.parametrize("name", ["planted-hard", "planted-test"])
def test_the_harder_subjects_are_scored_against_their_own_features(name: str) -> None:
    planted = features_of(name)
    blocks_FGD = planted.blocks(GROUP)
    first = np.unique(planted.families(GROUP), return_index=True)[1]
    ours = analysis("ours", blocks_FGD[first])
    true = [planted.features[i].orientation for i in first]
    found = planted_scores(name, SITE, ours, true, [])
    assert found is not None
    figures = found.figures()["ours"]
    assert figures["family_recall"] == figures["precision"] == 1
    assert figures["orientation_error"] == 0
    curves = sum(f.kind == "curve" for f in planted.features)
    assert figures["curves_planted"] == curves
    assert 0 < figures["curves"] < curves / 10, "one orientation of each radius"
    assert planted_scores("planted", SITE, ours, true, []) is not None
