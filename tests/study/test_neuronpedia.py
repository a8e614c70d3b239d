"""Batches for SAEDashboard and Neuronpedia, beside what the store and the dictionary say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.__main__ import run_stage
from tendril.data.cli import Outcome
from tendril.data.errors import ConfigError, ReportDamagedError
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.models.subjects.language import language_subject
from tendril.study.core.study import run_study
from tendril.study.core.token_text import readable
from tendril.study.features.config import FeaturesConfig
from tendril.study.features.study import FeaturesStudy

from ..helpers.language_home import DEAD, SITE, S, T, brute, make_home

# The fields that SAEDashboard's NeuronpediaDashboardFeature and -Activation take, by their types.
NUMBERS = ("feature_index", "n_prompts_total", "n_tokens_in_prompt")
FEATURE = {
    *NUMBERS,
    *("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
    *("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson"),
    *("correlated_features_indices", "correlated_features_l1", "correlated_features_pearson"),
    *("neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero"),
    *("freq_hist_data_bar_values", "freq_hist_data_bar_heights"),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
    *("dataset", "activations", "decoder_weights_dist"),
}
ACTIVATION = {
    *("bin_min", "bin_max", "bin_contains", "tokens", "values", "qualifying_token_index"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("neuronpedia"))


@pytest.fixture(scope="module")
def report(home: Path) -> Path:
    config = FeaturesConfig(run="a-topk", home=str(home), device="cpu", top=4, window=9)
    return run_study(FeaturesStudy(), config).report.parent


def export(report: Path, folder: Path, home: Path, *more: str) -> dict[str, Any]:
    words = ["study", "export", str(report), str(folder), "--home", str(home), *more]
    outcome = run_stage(words)
    assert isinstance(outcome, Outcome)
    return dict(outcome.result)


def batches(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("batch-*.json"))]


def test_features_have_the_fields_of_the_tools_and_the_figures_of_the_store(
    home: Path, report: Path, tmp_path: Path
) -> None:
    result = export(report, tmp_path / "out", home)
    assert result["latents"] == S and result["layer"] == 1 and result["batches"] == 1
    (batch,) = batches(tmp_path / "out")
    assert {"model_id", "layer", "sae_set", "features"} <= batch.keys()
    assert (batch["layer"], batch["sae_set"]) == (1, "a-topk")
    store = open_store(next((home / "store").iterdir()))
    sae = load_sae("a-topk", str(home))
    z_RS = brute(store, sae).reshape(-1, S)
    counted = np.isfinite(z_RS[:, 0])
    known = readable(language_subject(str(home / "llama")).tokenizer, range(53))
    token = store.column("token")
    for latent, feature in enumerate(batch["features"]):
        assert feature.keys() == FEATURE and feature["feature_index"] == latent
        acts = z_RS[counted, latent]
        assert feature["frac_nonzero"] == pytest.approx((acts > 0).mean())
        assert sum(feature["freq_hist_data_bar_heights"]) == (acts > 0).sum()
        lists = [feature[f"freq_hist_data_bar_{name}"] for name in ("heights", "values")]
        assert len(lists[0]) == len(lists[1])
        assert feature["n_tokens_in_prompt"] == T and feature["dataset"] == store.name
        row = sae.W_dec[latent].numpy()
        assert feature["neuron_alignment_indices"] == np.argsort(-row)[:3].tolist()
        shares = np.sort(row)[::-1][:3] / np.abs(row).sum()
        assert feature["neuron_alignment_l1"] == pytest.approx(np.abs(shares), abs=1e-3)
        assert feature["pos_values"] == sorted(feature["pos_values"], reverse=True)
        assert len(feature["pos_str"]) == len(feature["pos_values"]) == 10
        for one in feature["activations"]:
            assert one.keys() == ACTIVATION
            assert len(one["tokens"]) == len(one["values"])
            value = one["values"][one["qualifying_token_index"]]
            highest = float(acts.max())
            if one["bin_min"] == -1:
                assert one["bin_max"] == pytest.approx(highest, rel=1e-5)
            else:
                low, high = one["bin_min"], one["bin_max"]
                assert low * 0.999 <= value + highest / 1000 and value <= high * 1.001
                inside = ((acts >= low * 0.9999) & (acts < high * 0.9999)).mean()
                assert one["bin_contains"] == pytest.approx(inside, abs=2 / len(acts))
        strongest = [a for a in feature["activations"] if a["bin_min"] == -1]
        if latent != DEAD:
            best = int(np.nanargmax(z_RS[:, latent]))
            peak = strongest[0]
            at = peak["qualifying_token_index"]
            assert peak["values"][at] == pytest.approx(acts.max(), abs=1e-3)
            assert peak["tokens"][at] == known[token[best]]
    dead = batch["features"][DEAD]
    assert dead["frac_nonzero"] == 0 and dead["activations"] == []
    told = json.loads((tmp_path / "out" / "tendril.json").read_text())
    assert told["version"] == 1 and told["site"] == SITE


def test_names_are_given_and_folders_are_not_overwritten(
    home: Path, report: Path, tmp_path: Path
) -> None:
    names = ["--model", "llama-tiny", "--layer", "3", "--set", "res"]
    result = export(report, tmp_path / "out", home, *names)
    assert (result["model_id"], result["layer"], result["sae_set"]) == ("llama-tiny", 3, "res")
    with pytest.raises(ConfigError, match="already holds batches"):
        export(report, tmp_path / "out", home)


def test_a_damaged_or_another_report_is_a_sentence(
    home: Path, report: Path, tmp_path: Path
) -> None:
    about = report / "about.json"
    whole = about.read_text()
    try:
        about.write_text(whole.replace('"features"', '"curves"'))
        with pytest.raises(ConfigError, match="must be one of `tendril study features`"):
            export(report, tmp_path / "out", home)
    finally:
        about.write_text(whole)
    piece = report / "data" / "000.js"
    content = piece.read_bytes()
    try:
        piece.write_bytes(content[:-9])
        with pytest.raises(ReportDamagedError, match="has changed"):
            export(report, tmp_path / "out", home)
    finally:
        piece.write_bytes(content)
    assert not (tmp_path / "out").exists()
