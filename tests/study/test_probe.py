"""Sparse probes: planted features are told, shuffled labels are not, and absorption is counted."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix

from tendril.data.errors import ConfigError, TendrilError
from tendril.data.store.reader import open_store
from tendril.data.store.truth import open_truth
from tendril.harvest.config import LanguageConfig, SyntheticConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_sae, save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.study import StudyResult, run_study
from tendril.study.measures.feature_absorption import PlantedRows, absorption, families_of
from tendril.study.measures.sparse_probing import (
    Columns,
    interval,
    probed,
    probed_whole,
    ranked,
    shuffled,
    split_by_input,
)
from tendril.study.probe.config import ProbeConfig
from tendril.study.probe.examples import find_examples
from tendril.study.probe.study import ProbeStudy
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from ..helpers import image_home, language_home, tiny_language

ROWS, PER_INPUT = 6000, 20


def synthetic(home: Path, **fields: Any) -> Path:
    """Rows of 24 features in 48 dimensions."""
    small: dict[str, Any] = {"width": 48, "features": 24, "active": 4.0, "most": 0.4}
    harvest(
        SyntheticConfig(
            home=str(home), device="cpu", rows=ROWS, per_input=PER_INPUT, **(small | fields)
        )
    )
    return home


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Independent features."""
    return synthetic(tmp_path_factory.mktemp("flat"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four trees of a parent and three children, and eight features of no tree."""
    return synthetic(tmp_path_factory.mktemp("home"), roots=4, children=3, depth=1)


def tiny(home: Path, **fields: Any) -> TrainConfig:
    small: dict[str, Any] = {
        "home": str(home), "device": "cpu", "latents": 24, "k": 8, "steps": 250, "lr": 1e-2,
        "batch_size": 256, "dead_after": 5000, "site": "rows",
    }  # fmt: skip
    return TrainConfig(**(small | fields))


def probe(home: Path, runs: list[str], **fields: Any) -> StudyResult:
    small: dict[str, Any] = {"examples": 2000, "splits": 1, "k": (1, 5), "most_labels": 3}
    return run_study(
        ProbeStudy(), ProbeConfig(run=tuple(runs), home=str(home), device="cpu", **(small | fields))
    )


def table(result: StudyResult, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((result.report.parent / name).read_text().splitlines()))


def known(home: Path, run: Path, latents_of: Any) -> None:
    """Replace a run's dictionary by one made from the planted directions."""
    store = open_store(next((home / "store").iterdir()))
    rows_FD = torch.from_numpy(open_truth(store).directions_FdD[:, 0].copy())
    W_enc, W_dec = latents_of(rows_FD)
    sae = SAE(rows_FD.shape[1], len(W_dec), Sparsity("relu"), pre_bias=False)
    sae.W_enc.data.copy_(W_enc)
    sae.W_dec.data.copy_(W_dec)
    config = json.loads((run / "config.json").read_text())
    config["dictionary"] = sae.description()
    config["latents"] = len(W_dec)
    (run / "config.json").write_text(json.dumps(config))
    save_dictionary(run, sae, config, torch.ones(len(W_dec)))
    (run / "result.json").unlink()


def test_the_best_latent_reaches_the_auc_of_the_planted_feature(flat: Path) -> None:
    runs = [train(tiny(flat, seed=seed, steps=400)).run.name for seed in (0, 1)]
    frozen = train(tiny(flat, control="frozen-decoder", steps=400)).run.name
    result = probe(flat, [*runs, frozen])
    by = {(one["columns"], one["k"]): one for one in result.figures["records"]}
    trained, control = "TopK 24, k 8", "TopK 24, k 8 (frozen-decoder)"
    assert by[trained, 1]["runs"] == 2 and by[control, 1]["runs"] == 1
    planted = by["planted direction", 1]["auc"]
    assert by[trained, 1]["auc"] >= planted > 0.95
    for other in (control, "units", "principal components"):
        assert by[other, 1]["auc"] < by[trained, 1]["auc"] - 0.03, other
    assert by["whole vector", "all"]["auc"] > 0.95
    assert by["whole vector", "all"]["accuracy"] > 0.85
    for one in by.values():
        assert abs(one["auc_shuffled"] - 0.5) < 0.06, one
        assert one["auc_low"] <= one["auc"] <= one["auc_high"]
    assert {line["label"] for line in table(result, "labels.csv")} <= {
        f"feature {f}" for f in range(24)
    }
    assert len(table(result, "probe.csv")) == 3 * 2 + 2 * 2 - 2 + 2
    assert probe(flat, [*runs, frozen]).reused
    assert "planted direction" in result.report.read_text()
    assert not result.figures["absorptions"], "there are no trees"


def test_absorption_of_a_dictionary_that_absorbs_and_of_one_that_does_not(
    home: Path, tmp_path: Path
) -> None:
    """Rows of orthogonal features, so that a dictionary is known exactly."""
    (tmp_path / "store").symlink_to((home / "store").resolve())
    store = open_store(next((home / "store").iterdir()))
    truth = open_truth(store)
    rows_FD = truth.directions_FdD[:, 0].astype(np.float64)
    parents_F = truth.parents_F
    families = families_of(parents_F)
    assert families == {p: [4 + 3 * p + i for i in range(3)] for p in range(4)}
    features_NK = truth.features(slice(0, ROWS))
    rows = PlantedRows(features_NK, truth.coordinates(slice(0, ROWS))[:, :, 0], rows_FD)
    amounts_NF = np.stack([rows.amounts(f) for f in range(24)], axis=1)
    main, all_N = {f: f for f in range(24)}, np.ones(ROWS, bool)
    clean = absorption(Columns(csc_matrix(amounts_NF)), rows_FD, rows, main, families, all_N)
    assert [one.parent for one in clean] == [0, 1, 2, 3]
    assert all((one.rate, one.missed_with_child, one.missed_alone) == (0, 0, 0) for one in clean)
    child_NP = np.stack([(amounts_NF[:, c] > 0).any(axis=1) for c in families.values()], axis=1)
    taken_NF, absorbing_FD = amounts_NF.copy(), rows_FD.copy()
    taken_NF[:, :4] *= ~child_NP  # the parents' own latents are off where a child is on
    kept = absorption(Columns(csc_matrix(taken_NF)), rows_FD, rows, main, families, all_N)
    for child, parent in enumerate(parents_F.tolist()):
        if parent >= 0:
            absorbing_FD[child] += 2 * rows_FD[parent]
    found = absorption(Columns(csc_matrix(taken_NF)), absorbing_FD, rows, main, families, all_N)
    for number, (one, other) in enumerate(zip(found, kept, strict=True)):
        on_N = amounts_NF[:, number] > 0
        share = (child_NP[:, number] & on_N).sum() / on_N.sum()
        assert one.rows == on_N.sum() and 0.2 < share < 0.95
        assert one.rate == pytest.approx(share, abs=0.02)
        assert other.rate < 0.25 * share, "what a child writes by chance"
        assert (one.missed_with_child, one.missed_alone) == (1, 0)
    alone = absorption(Columns(csc_matrix(taken_NF)), absorbing_FD, rows, {0: 0}, families, all_N)
    assert [(one.parent, one.rate) for one in alone] == [(0, 0.0)], "no child has a main latent"
    run = train(tiny(tmp_path, steps=1)).run

    def untouched(rows_FD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.linalg.pinv(rows_FD), rows_FD

    known(home, run, untouched)
    result = probe(tmp_path, [str(run)], k=(1,))
    (line,) = result.figures["absorptions"]
    assert "off with a child" in result.report.read_text()
    assert line["parents"] == 4 and line["rate"] == 0 and line["missed_alone"] == 0
    by = {(one["columns"], one["k"]): one for one in result.figures["records"]}
    assert by[line["columns"], 1]["auc"] == pytest.approx(1, abs=1e-3)


def test_classes_of_images_are_told_by_means_over_positions(tmp_path: Path) -> None:
    image_home.make_images(tmp_path / "images", 121)
    store = image_home.make_store(tmp_path)
    run = image_home.make_run(tmp_path, store, "a-run").name
    (tmp_path / "classes.txt").write_text("red of fire\ngreen\nunused\nblue\nn01440760 fish\n")
    own = probe(tmp_path, [run], most_labels=3)
    assert {line["label"] for line in table(own, "labels.csv")} == {"blue", "green", "red"}
    by = {(one["columns"], one["k"]): one for one in own.figures["records"]}
    assert by["whole vector", "all"]["auc"] > 0.95 and by["units", 1]["auc"] > 0.9
    config = ProbeConfig(run=(run,), home=str(tmp_path), labels=str(tmp_path / "classes.txt"))
    listed = find_examples(config, store)
    assert (listed.unit, len(listed.input_N), listed.pooled) == ("image", 121, True)
    inside = find_examples(replace(config, labels="inputs"), store)
    for name in image_home.CLASSES:
        both_N = np.isin(listed.input_N, inside.input_N)
        assert listed.labels[name][both_N].tolist() == inside.labels[name].tolist()
    two = ("cold=blue-green", "fish=n01440760,red")
    grouped = find_examples(replace(config, classes=two), store).labels
    assert list(grouped) == ["cold", "fish"] and not (grouped["cold"] == grouped["fish"]).any()
    for classes, message in (
        (("cold",), "--classes must be NAME=CLASS,FIRST-LAST; got 'cold'"),
        (("cold=pink",), "none lies in 'pink'.* They go from 'blue' to 'red'"),
        (("fish=n01440760",), "a label needs 20 examples with it and as many without"),
        (("cold=",), "--classes must be NAME=CLASS,FIRST-LAST; got 'cold='"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_examples(replace(config, classes=classes), store)


def test_kinds_of_tokens_and_classes_of_documents_are_told(tmp_path: Path) -> None:
    model = tiny_language.save(tmp_path / "llama")
    (tmp_path / "text").mkdir()
    words = tiny_language.WORDS
    lines = []
    for number in range(60):
        some = words[20:] if number % 3 else words[:30]  # ten words in common; digits come last
        drawn = np.random.default_rng(number).integers(0, len(some), 40)
        text = " ".join(some[i] for i in drawn.tolist())
        (tmp_path / "text" / f"{number:02}.txt").write_text(text)
        lines.append("late" if number % 3 else "early")
    config = LanguageConfig(
        inputs=str(tmp_path / "text"), subject=str(model), device="cpu", home=str(tmp_path),
        sites=("resid_post.1",), context=16, dtype="float32",
    )  # fmt: skip
    store = open_store(harvest(config).store)
    run = language_home.make_run(tmp_path, store, Sparsity("topk", 6)).name
    tokens = probe(tmp_path, [run])
    assert {line["label"] for line in table(tokens, "labels.csv")} == {"digit", "word begin"}
    by = {(one["columns"], one["k"]): one for one in tokens.figures["records"]}
    assert by["whole vector", "all"]["auc"] > 0.9 > 0.6 > by["whole vector", "all"]["auc_shuffled"]
    assert tokens.figures["inputs"] == 60, "documents"
    (tmp_path / "sources.txt").write_text("\n".join(lines))
    told = probe(tmp_path, [run], labels=str(tmp_path / "sources.txt"), k=(20,))
    assert {line["label"] for line in table(told, "labels.csv")} == {"early", "late"}
    by = {(one["columns"], one["k"]): one for one in told.figures["records"]}
    assert by["whole vector", "all"]["auc"] > 0.8
    short = tmp_path / "short.txt"
    short.write_text("early\n")
    for labels, message in (
        (str(short), "must have a line for each document of .*; it has 1, and there are 60"),
        ("nothing", "--labels must be tokens, or a file with the class of a document in each li"),
        ("truth", "holds no truth"),
    ):
        with pytest.raises(TendrilError, match=message):
            probe(tmp_path, [run], labels=labels)


def test_columns_are_ranked_and_probed_as_by_hand() -> None:
    rng = np.random.default_rng(0)
    label_N = rng.random(400) < 0.3
    x_NS = rng.normal(size=(400, 6))
    x_NS[:, 3] += 2 * label_N
    x_NS[:, 1] = 100 * (x_NS[:, 1] - label_N)
    x_NS[:, 5] = 7.0
    x_NS[x_NS < -1e3] = 0
    split = split_by_input(np.arange(400) // 4, 0.25, 0)
    inputs = np.arange(400) // 4
    assert not set(inputs[split.train_N]) & set(inputs[~split.train_N])
    assert (~split.train_N).sum() == 100
    dense, sparse = Columns(x_NS), Columns(csc_matrix(x_NS))
    order = ranked(dense, label_N, split, 6)
    assert order[:2].tolist() == [3, 1] and order[-1] == 5
    assert ranked(sparse, label_N, split, 6).tolist() == order.tolist()
    train_N = split.train_N
    apart = x_NS[train_N & label_N].mean(axis=0) - x_NS[train_N & ~label_N].mean(axis=0)
    score = np.abs(apart[:5]) / x_NS[train_N].std(axis=0)[:5]
    assert order[:5].tolist() == np.argsort(-score).tolist()
    found = probed(sparse, label_N, split, (1, 2, 20))
    assert list(found) == [1, 2]
    one_M, with_M = x_NS[~train_N, 3], label_N[~train_N]
    wins = (one_M[with_M][:, None] > one_M[~with_M]).mean()
    assert found[1].auc == pytest.approx(wins)
    assert found[2].auc > found[1].auc
    assert abs(probed(dense, shuffled(label_N, 0), split, (2,))[2].auc - 0.5) < 0.15
    assert probed_whole(dense, label_N, split).auc > found[1].auc
    low, high = interval(np.array([0.4, 0.6] * 50))
    assert low < 0.5 < high and high - low == pytest.approx(2 * 1.96 * 0.01, rel=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "tokens"}, "--labels tokens needs a store of text"),
        ({"labels": "nothing.txt"}, "--labels must be truth for a synthetic store"),
        ({"k": (0,)}, "--k must be numbers of latents from 1; got 0"),
        ({"judged": 1.0}, "--judged must be between 0 and 1; got 1"),
        ({"run": ()}, "--run must give the name of a run"),
    ],
)
def test_bad_input_is_refused(home: Path, fields: dict[str, Any], message: str) -> None:
    run = train(tiny(home, steps=1)).run
    config = ProbeConfig(run=(str(run),), home=str(home), device="cpu")
    with pytest.raises(ConfigError, match=message):
        run_study(ProbeStudy(), replace(config, **fields))
    assert load_sae(run).latents == 24
