"""Causal trees of a model whose causes are known."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.store.reader import open_store
from tendril.harvest.config import LanguageConfig
from tendril.harvest.run import harvest
from tendril.models.subjects.language import language_subject
from tendril.study.__main__ import main
from tendril.study.causes.config import CausesConfig
from tendril.study.causes.study import CausesStudy
from tendril.study.core.study import StudyResult, run_study
from tendril.study.measures.latent_causes import in_order, occurrences
from tendril.study.measures.rank_agreement import overlap, rank_correlation

from ..helpers import planted_chain
from ..helpers.planted_chain import CAUSES, SITES, UNITS, latent_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, a store of its three sites, and a dictionary of each."""
    home = tmp_path_factory.mktemp("home")
    planted_chain.save_model(home / "model")
    drawn = torch.randint(8, (1600,), generator=torch.Generator().manual_seed(0)).tolist()
    (home / "text.txt").write_text(" ".join(planted_chain.WORDS[i] for i in drawn))
    config = LanguageConfig(
        inputs=str(home / "text.txt"), subject=str(home / "model"), sites=SITES, context=8,
        dtype="float32", device="cpu", home=str(home),
    )  # fmt: skip
    store = open_store(harvest(config).store)
    planted_chain.save_runs(home / "runs", store.path, store.spec["subject"])
    return home


def config(home: Path, feature: str = "Y", **fields: object) -> CausesConfig:
    given: dict[str, object] = {
        "run": ("site2", "site0", "site1"), "latent": latent_of(SITES[2], feature),
        "inputs": str(home / "text.txt"), "device": "cpu", "home": str(home),
    }  # fmt: skip
    return CausesConfig(**(given | fields))  # type: ignore[arg-type]


def causes(config: CausesConfig) -> StudyResult:
    return run_study(CausesStudy(), config)


def edges(result: StudyResult) -> set[tuple[str, str]]:
    """(cause, latent) by the names of planted features; others by site and unit."""
    names = {unit: name for name, unit in UNITS.items()}
    found = set()
    for node in result.figures["nodes"]:
        unit = planted_chain.order_of(node["site"])[node["latent"]]
        before = SITES[SITES.index(node["site"]) - 1]
        for cause in node["causes"]:
            causing = planted_chain.order_of(before)[cause["latent"]]
            found.add((names.get(causing, f"unit {causing}"), names[unit]))
    return found


def planted(feature: str) -> set[tuple[str, str]]:
    return {(one, feature) for one in CAUSES.get(feature, ())}.union(
        *(planted(one) for one in CAUSES.get(feature, ()))
    )


@pytest.mark.parametrize("feature", ["Y", "Z"])
def test_a_planted_chain_is_recovered_with_precision_and_recall_1(home: Path, feature: str) -> None:
    result = causes(config(home, feature))
    wanted, found = planted(feature), edges(result)
    assert len(wanted) == (4 if feature == "Y" else 2)
    precision, recall = len(wanted & found) / len(found), len(wanted & found) / len(wanted)
    assert (precision, recall) == (1.0, 1.0), found
    root = result.figures["nodes"][0]
    assert root["together"] == pytest.approx(1, abs=0.02), "with all causes gone, so is the latent"
    assert root["unexplained"] == pytest.approx(1), "what is not explained holds the gates open"
    assert root["contexts"] == 20
    for node in result.figures["nodes"]:
        for cause in node["causes"]:
            assert cause["fall"] == pytest.approx(cause["attribution"], abs=0.1), "nearly linear"
            assert abs(cause["control"]) < 0.02 < cause["fall"]
    assert result.figures["mean_control"] < 0.02


def test_the_page_the_tables_and_the_command(home: Path) -> None:
    dry = causes(config(home, dry_run=True))
    assert dry.dry_run and dry.figures["sites"] == 3
    result = causes(config(home))
    page = result.report.read_text()
    assert page.count('class="edge"') == len(planted("Y"))
    assert page.count('<article class="latent"') == 5
    rows = (result.report.parent / "causes.csv").read_text().splitlines()
    assert rows[0] == "site,target,latent,fall,error,attribution,contexts,edit,control,control_edit"
    assert len(rows) == 1 + len(planted("Y"))
    assert "rank correlation" in page
    command = json.loads((result.report.parent / "about.json").read_text())["command"]
    again = main(shlex.split(command)[2:]).result
    assert again["reused"] and again["report"] == str(result.report)


def test_what_attribution_leaves_out_is_seen(home: Path) -> None:
    """With a single latent removed, drawn others show that a cause was missed."""
    root = causes(config(home, exact=1, audit=15)).figures["nodes"][0]
    assert len(root["causes"]) == 1
    assert root["agreement"]["missed"] == 1
    assert root["agreement"]["audit_most"] > 0.1


def test_what_cannot_be_studied_is_told(home: Path) -> None:
    with pytest.raises(ConfigError, match="--run must give the names of 2 runs or more; got 1"):
        causes(config(home, run=("site2",)))
    with pytest.raises(ConfigError, match="one run of each site; got 2"):
        causes(config(home, run=("site2", "site2")))
    with pytest.raises(ConfigError, match="--latent must be below 16"):
        causes(config(home, latent=16))
    with pytest.raises(ConfigError, match="--latent must give the number"):
        causes(config(home, latent=-1))
    silent = latent_of(SITES[2], "w5")
    (home / "none.txt").write_text(" ".join(["w7 w8"] * 40))
    result = causes(config(home, latent=silent, inputs=str(home / "none.txt")))
    assert result.headline == f"Latent {silent} is active nowhere in this text."


def test_sites_are_in_the_order_of_the_model(home: Path) -> None:
    subject = language_subject(str(home / "model"))
    names = ["blocks.1.hook_mlp_out", SITES[2], "blocks.1.hook_attn_out", SITES[0], SITES[1]]
    assert in_order(subject, names) == [SITES[0], SITES[1], names[2], names[0], SITES[2]]


def test_contexts_reach_from_half_of_the_maximum_to_the_maximum() -> None:
    z_BT = np.random.default_rng(0).random((30, 6)).astype(np.float32)
    z_BT[:10] *= 0.4
    tokens_BT = np.arange(180).reshape(30, 6)
    found = occurrences(z_BT, tokens_BT, z_BT >= 0, 12, 0, torch.device("cpu"))
    assert len(found) == 12 and len(set(found.context_C.tolist())) == 12
    assert found.value_C.min() >= z_BT.max() / 2
    assert found.context_C.min() >= 10
    for row, at, value in zip(found.context_C, found.at_C.tolist(), found.value_C, strict=True):
        assert value == z_BT[row, at]


def test_rank_agreement() -> None:
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, b) == pytest.approx(0.8)
    assert rank_correlation(np.array([1.0, 1.0, 2.0, 3.0]), a) == pytest.approx(0.9486833)
    assert rank_correlation(a, np.ones(4)) is None
    assert (overlap(a, b, 2), overlap(a, -a, 2)) == (1, 0)
