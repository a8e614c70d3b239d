"""What every reader must know stands on the page, in the figures and on the terminal: tokens in
place of a map, examples that are training inputs, norm outliers that a run left out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data import order
from tendril.data.errors import SubjectError
from tendril.data.store.reader import open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import save_dictionary
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.study.core.config import outlier_remark
from tendril.study.core.stores import text_of, without_dropped
from tendril.study.run import study

from ..helpers import language_runs

TOKENS = """
import torch
from torch import nn
from tendril.models.subjects.module import subject_from_module

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 6, 8, 8)
        self.first = nn.Parameter(torch.randn(1, 1, 6))
        self.block = nn.Linear(6, 6)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1) + x.mean(1, keepdim=True), x], 1)
        return self.block(x)[:, 0]

def make():
    return subject_from_module(Tokens(), input_size=32, name="tokens")

def told():
    return subject_from_module(
        Tokens(), input_size=32, name="tokens", prefix_tokens=["class"], patch_size=8
    )
"""
QUICK = {"device": "cpu", "orientation_step": 30.0, "radii": (6.0, 10.0)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of 17 tokens, a store of its block on twenty images, and a run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokens.py").write_text(TOKENS)
    (tmp_path / "images").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02}.png")
    return tmp_path


def subject(home: Path, function: str = "make") -> str:
    return f"{home / 'tokens.py'}:{function}"


def store_of(home: Path, site: str = "block", function: str = "make", tokens: Any = "auto") -> Path:
    config = HarvestConfig(
        inputs=str(home / "images"),
        subject=subject(home, function),
        tokens=tokens,
        sites=(site,),
        device="cpu",
        home=str(home),
    )
    return Path(harvest(config).store)


def save_run(home: Path, name: str, made: Path, site: str = "block", **fields: object) -> None:
    sae = SAE(6, 6, Sparsity("relu"), pre_bias=False)
    told = {
        "site": site,
        "subject": open_store(made).spec["subject"],
        "store": made.name,
        "store_path": str(made),
        "held_out": 0.25,
    }
    save_dictionary(home / "runs" / name, sae, told | fields, torch.full((6,), 0.1))


@pytest.mark.parametrize(
    ("function", "tokens", "words"),
    [
        ("make", "auto", "6 channels at 17 positions, one for each of all tokens (block)"),
        ("told", "auto", "6 channels on a 4 x 4 map of patches, without a class token (block)"),
        ("told", "all", "6 channels at 17 positions, one for each of all tokens (block)"),
        ("told", "class", "20 rows of 6 channels, the class token (block)"),
    ],
)
def test_a_harvest_says_which_tokens_its_rows_are(
    home: Path, function: str, tokens: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(home, function=function, tokens=tokens)
    assert words in capsys.readouterr().err


STUDIES: Mapping[str, Mapping[str, Any]] = {
    "curves": {**QUICK, "run": "tokens"},
    "missing": {**QUICK, "run": ("tokens",)},
    "visualise": {"device": "cpu", "run": "tokens", "units": (0,), "steps": 2},
    "joint": {"device": "cpu", "run": "tokens"},
    "symmetry": {"device": "cpu", "run": "tokens"},
    "evidence": {"device": "cpu", "run": ("tokens",)},
}


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("function", ["make", "told"])
def test_studies_of_receptive_fields_refuse_tokens_and_say_what_works(
    home: Path, name: str, function: str
) -> None:
    save_run(home, "tokens", store_of(home, function=function))
    with pytest.raises(
        SubjectError,
        match=f"study {name} needs a site whose vectors depend on a part of the image; block of "
        r"tokens holds tokens.*`tendril study features --run tokens` shows",
    ):
        study(name, home=str(home), **STUDIES[name])


@pytest.mark.parametrize(
    ("function", "tokens", "words"),
    [
        ("make", "auto", "block holds 17 tokens; all of them are studied"),
        ("told", "auto", "the 4 x 4 patches are studied"),
        ("told", "class", "only its class token is studied"),
    ],
)
def test_splice_says_which_tokens_it_replaces(
    home: Path, function: str, tokens: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_run(home, "tokens", store_of(home, function=function, tokens=tokens))
    capsys.readouterr()
    made = study("splice", run=("tokens",), device="cpu", home=str(home))
    told = capsys.readouterr().err
    for text in (made.report.read_text(), " ".join(made.figures["remarks"]), told):
        assert words in text
    assert json.loads((made.report.parent / "result.json").read_text())["remarks"]


def test_units_of_tokens_are_refused_without_a_store_too(home: Path) -> None:
    with pytest.raises(SubjectError, match="Choose a convolutional site"):
        study("curves", run="", subject=subject(home), site="block", home=str(home), **QUICK)


def test_a_map_is_no_tokens(home: Path) -> None:
    made = study("curves", run="", subject=subject(home), site="patches", home=str(home), **QUICK)
    assert "remarks" not in made.figures


def test_pages_say_how_many_examples_may_be_training_inputs(home: Path) -> None:
    store = store_of(home, "patches")
    save_run(home, "one", store, "patches", norm_outliers="drop", outlier_times=5.0)
    trained = int((~order.held_out(np.arange(20), 0.25)).sum())
    made = study("curves", run="one", subject=subject(home), home=str(home), **QUICK)
    for text in (made.report.read_text(), " ".join(made.figures["remarks"])):
        assert f"all 20 inputs of {store.name}, {trained} of which the run was trained on" in text
        assert "norm outliers (rows above 5 times the median norm); here they are read" in text
    save_run(home, "other", store, "patches", store="elsewhere")
    made = study("curves", run="other", subject=subject(home), home=str(home), **QUICK)
    assert "is not known: its own store is elsewhere" in made.report.read_text()


def test_runs_of_one_seed_are_no_repetitions(home: Path) -> None:
    store = store_of(home, "patches")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_run(home, name, store, "patches", seed=seed, objective="topk")
    for runs, told in ((("a", "b"), True), (("a", "c"), False)):
        made = study("missing", run=runs, subject=subject(home), home=str(home), **QUICK)
        assert ("no independent repetitions" in made.report.read_text()) is told


@pytest.mark.parametrize(
    ("config", "dropped", "text"),
    [
        ({"norm_outliers": "drop"}, True, "they are left out here, too"),
        ({"norm_outliers": "drop"}, False, "here they are read as they are"),
        ({"norm_outliers": "cap", "outlier_times": 4}, True, "above 4 times the median norm"),
        ({"norm_outliers": "keep"}, False, ""),
        ({}, False, ""),
    ],
)
def test_outliers_in_words(config: dict[str, Any], dropped: bool, text: str) -> None:
    assert text in " ".join(outlier_remark([config, config], dropped=dropped))
    assert len(outlier_remark([config, config], dropped=dropped)) == bool(text)


def test_features_leave_out_the_rows_that_the_run_dropped(tmp_path: Path) -> None:
    """Activity is over the rows without outliers; a run that keeps them reads all."""
    store, told = language_runs.harvested(tmp_path, "llama")
    norms = np.sort(store.norms(language_runs.SITE)[store.column("valid")])
    times = float(norms[int(0.8 * len(norms))] / np.median(norms))  # a fifth count as outliers
    dictionary = language_runs.both_signs()
    frequency = torch.full((dictionary.latents,), 0.1)
    fields = {"norm_outliers": "drop", "outlier_times": times}
    save_dictionary(tmp_path / "runs" / "keep", dictionary, told, frequency)
    save_dictionary(tmp_path / "runs" / "drop", dictionary, told | fields, frequency)
    made = {
        name: study("features", run=name, home=str(tmp_path), device="cpu")
        for name in ("keep", "drop")
    }
    text = text_of(open_store(store.path))
    kept = without_dropped(text, store, (language_runs.SITE,), fields)
    assert made["keep"].figures["rows"] == text.valid_BT.sum()
    assert made["drop"].figures["rows"] == kept.valid_BT.sum() < text.valid_BT.sum()
    assert kept.valid_BT.sum() / text.valid_BT.sum() == pytest.approx(0.8, abs=0.02)
    assert "they are left out here, too" in made["drop"].report.read_text()
    assert "norm outliers" not in made["keep"].report.read_text()
    count = len(text.tokens_BT)
    trained = int((~order.held_out(np.arange(count), 0.2)).sum())
    assert f"{trained} of which the run was trained on" in made["keep"].report.read_text()
