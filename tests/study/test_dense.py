"""Dense latents: planted pairs and properties, and the study with a span that is removed."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import (
    load_sae,
    read_tensors,
    save_dictionary,
    write_tensors,
)
from tendril.study.core.study import run_study
from tendril.study.dense.config import DenseConfig
from tendril.study.dense.study import DenseStudy
from tendril.study.measures.dense_traits import (
    antipodality,
    auc,
    best_auc,
    ranks,
    spearman,
    tail_fraction,
)
from tendril.study.measures.matching import Directions
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from ..helpers import language_home
from .test_page import check


def test_opposites_are_paired_and_copies_are_not() -> None:
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(6, 50))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[3], rows[4] = -rows[0], rows[1]  # an opposite, and a copy
    score_S, partner_S = antipodality(Directions(rows, rows, np.full(6, 0.5)))
    assert score_S[[0, 3]] == pytest.approx(1) and partner_S[[0, 3]].tolist() == [3, 0]
    assert (score_S[[1, 2, 4, 5]] < 0.3).all()
    alone, nobody = antipodality(Directions(rows[:1], rows[:1], np.ones(1)))
    assert alone[0] == 0 and nobody[0] == -1


def test_ranks_auc_and_tails_against_brute_force() -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    draws = np.random.default_rng(1)
    z_NS = np.maximum(draws.normal(size=(300, 4)), 0)  # many ties at zero
    z_NS[:, 3] = 0
    value_N, inside_N = draws.normal(size=300), draws.random(300) < 0.3
    rank_NS = ranks(z_NS)
    found = spearman(rank_NS, value_N)
    assert found[3] == 0
    for s in range(3):
        assert found[s] == pytest.approx(spearmanr(z_NS[:, s], value_N).statistic)
        assert auc(rank_NS, inside_N)[s] == pytest.approx(roc_auc_score(inside_N, z_NS[:, s]))
    group_N = draws.integers(0, 3, 300)
    z_NS[:, 0] += 5 * (group_N == 2)
    best_S, which_S = best_auc(ranks(z_NS), group_N, 50)
    assert which_S[0] == 2 and best_S[0] > 0.95
    assert best_auc(ranks(z_NS), group_N, 200)[1].tolist() == [-1] * 4, "too few rows"
    W_VD = np.diag([5.0, 4.0, 3.0, 2.0, 0.1])
    rows_SD = np.eye(5)
    assert tail_fraction(rows_SD, W_VD, 0.2).tolist() == pytest.approx([0, 0, 0, 0, 1])


def test_the_study_writes_spans_that_training_takes(tmp_path: Path) -> None:
    """A latent of the position is planted in a dictionary of a tiny model."""
    store = language_home.make_store(tmp_path)
    whole = train(
        TrainConfig(store=str(store.path), latents=24, k=6, steps=20, batch_size=64, device="cpu",
                    threads=1, home=str(tmp_path), name="whole")
    )  # fmt: skip
    config = DenseConfig(run=("whole",), home=str(tmp_path), device="cpu", rows=200)
    made = run_study(DenseStudy(), config)
    figures = made.figures
    assert figures["dense"] > 3 and figures["runs"][0]["removed_span"] == ""
    assert {"position", "first letter", "token class", "norm"} <= {
        one["property"] for one in figures["properties"]
    }
    folder = made.report.parent
    with (folder / "latents.csv").open() as file:
        rows = list(csv.DictReader(file))
    dense = [row for row in rows if row["dense"] == "1"]
    assert len(dense) == figures["dense"]
    frequency = [float(row["frequency"]) for row in dense]
    assert frequency == sorted(frequency, reverse=True) and frequency[-1] > 0.1
    spans = {name: read_tensors(folder / f"{name}.safetensors")[0]["directions"]
             for name in ("dense",)}  # fmt: skip
    W_SD = torch.nn.functional.normalize(load_sae(whole.run).W_dec, dim=1)
    chosen = sorted(int(row["latent"]) for row in dense)
    torch.testing.assert_close(spans["dense"], W_SD[chosen])
    less = tmp_path / "three.safetensors"
    write_tensors(less, {"directions": spans["dense"][:3]})
    base = TrainConfig(store=str(store.path), latents=24, k=6, steps=20, batch_size=64,
                       device="cpu", threads=1, home=str(tmp_path), name="less")  # fmt: skip
    train(dataclasses.replace(base, remove_span=str(less)))
    both = run_study(DenseStudy(), dataclasses.replace(config, run=("whole", "less")))
    assert [one["removed_span"] for one in both.figures["runs"]] == ["", "three.safetensors"]
    check(both.report.read_text())
    command = "tendril train topk --store llama-text"
    assert command in both.report.read_text().replace(store.name, "llama-text")
    assert "--k 6 --remove-span dense.safetensors" in both.report.read_text()
    with pytest.raises(ConfigError, match="--dense must be a fraction"):
        DenseConfig(dense=1.0).check()
    none = run_study(DenseStudy(), dataclasses.replace(config, dense=0.999))
    assert none.figures["dense"] == 0 and "0 of 24 latents" in none.outcome().sentence


def test_a_latent_of_the_position_is_told(tmp_path: Path) -> None:
    store = language_home.make_store(tmp_path, "gpt2")  # whose positions can be read from rows
    made = train(
        TrainConfig(store=str(store.path), latents=8, k=8, steps=2, batch_size=64, device="cpu",
                    threads=1, home=str(tmp_path), name="p", objective="relu_l1")
    )  # fmt: skip
    sae = load_sae(made.run)
    x_ND = store.read(store.sites[0], slice(0, store.rows))
    valid = store.column("valid")
    at_N = store.column("position")[valid].astype(float)
    weights = np.linalg.lstsq(
        np.column_stack([x_ND[valid], np.ones(valid.sum())]), at_N, rcond=None
    )[0]
    with torch.no_grad():
        sae.W_enc[:, 0] = torch.from_numpy(weights[:-1]).float()
        sae.b_enc[0] = float(weights[-1]) + 1
    trained = json.loads((made.run / "config.json").read_text())
    (made.run / "result.json").unlink()
    save_dictionary(made.run, sae, trained, torch.full((8,), 0.5))
    figures = run_study(
        DenseStudy(), DenseConfig(run=("p",), home=str(tmp_path), device="cpu", rows=300)
    ).figures
    shares = {one["property"]: one["dense"] for one in figures["properties"]}
    assert shares["position"] >= 1 / 8
    (made.run / "latents.safetensors").unlink()
    with pytest.raises(ConfigError, match="needs how often each latent is active"):
        run_study(DenseStudy(), DenseConfig(run=("p",), home=str(tmp_path), device="cpu"))
