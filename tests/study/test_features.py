"""The study of features: its page and data against brute force, and mistakes."""

import base64
import csv
import dataclasses
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.data import order
from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.store.reader import Store, open_store
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.language import language_subject
from tendril.study.__main__ import main
from tendril.study.core.study import StudyResult, run_study
from tendril.study.core.token_text import readable
from tendril.study.features.config import FeaturesConfig
from tendril.study.features.page import thousandths
from tendril.study.features.study import FeaturesStudy

from ..helpers.language_home import K, S, T, brute, make_home, make_run, make_store

MODULES = 45  # most of ours that `tendril study features` may load


def study_features(config: FeaturesConfig) -> StudyResult:
    return run_study(FeaturesStudy(), config)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("features"))


@pytest.fixture
def store(home: Path) -> Store:
    return open_store(next((home / "store").iterdir()))


def test_thousandths_keep_what_is_on_and_what_is_not_counted() -> None:
    acts = np.array([0, 2, 1, 1e-6, np.nan], np.float32)
    assert thousandths(acts, 2.0).tolist() == [0, 1000, 500, 1, -1]


def script(path: Path) -> list[Any]:
    """The arguments of a file of data."""
    call = re.fullmatch(r"features\.\w+\((.*)\);\n", path.read_text(), re.DOTALL)
    assert call
    return list(json.loads(f"[{call[1]}]"))


def table_of(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_a_report_holds_what_was_counted(home: Path, store: Store) -> None:
    config = FeaturesConfig(run="a-topk", home=str(home), device="cpu", top=4, window=9)
    done = study_features(config)
    assert not done.reused
    assert study_features(config).reused
    folder = done.report.parent
    z_RS = brute(store, load_sae("a-topk", str(home))).reshape(-1, S)
    frequency = (z_RS > 0).sum(0) / np.isfinite(z_RS[:, 0]).sum()
    (index,) = script(folder / "data" / "index.js")
    assert np.allclose(floats(index["frequency"]), frequency)
    number, latents = script(folder / "data" / "000.js")
    assert (number, len(latents)) == (0, S)
    lines = table_of(folder / "latents.csv")
    assert [int(line["latent"]) for line in lines] == list(range(S))
    tokens, token = index["tokens"], store.column("token")
    known = readable(language_subject(str(home / "llama")).tokenizer, range(53))
    for latent, (told, line) in enumerate(zip(latents, lines, strict=True)):
        assert told["fired"] == int(line["fired"]) == (z_RS[:, latent] > 0).sum()
        assert float(line["frequency"]) == pytest.approx(frequency[latent], rel=1e-3)
        assert [tokens[t] for t, _ in told["up"]] == json.loads(line["promotes"])
        for context, position, _, value, at, shown, acts, _, level in told["strongest"]:
            row = context * T + position
            assert value == pytest.approx(z_RS[row, latent], rel=1e-3)
            assert tokens[shown[at]] == known[token[row]]
            assert acts[at] == round(1000 * z_RS[row, latent] / np.nanmax(z_RS[:, latent]))
            assert level is None
        strongest = {(c, p) for c, p, *_ in told["strongest"]}
        assert not strongest & {(c, p) for c, p, *_ in told["weaker"]}
        weaker = [e[3] for e in told["weaker"]]
        assert weaker == sorted(weaker, reverse=True)
    borders = [b for told in latents for e in told["strongest"] for b in e[7]]
    assert borders
    assert done.figures["latents_never_on"] == 1
    page = done.report.read_text()
    assert "--run a-topk" in page
    assert 'href="latents.csv"' in page


def test_parts_and_a_limit_choose_contexts(home: Path, store: Store) -> None:
    config = FeaturesConfig(run="a-relu", home=str(home), device="cpu", top=50)
    aside = order.held_out(np.arange(store.rows // T), 0.3)
    for part, wanted in (("held_out", aside), ("train", ~aside)):
        done = study_features(dataclasses.replace(config, part=part))
        (told,) = [p for p in script(done.report.parent / "data" / "000.js") if p != 0]
        seen = {c for latent in told for c, *_ in latent["strongest"]}
        assert done.figures["contexts"] == wanted.sum()
        assert seen <= set(np.flatnonzero(wanted).tolist())
    done = study_features(dataclasses.replace(config, limit=5, quantiles=0))
    assert done.figures["contexts"] == 5


def test_an_encoder_has_no_logits_and_its_page_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path, "bert")
    make_run(tmp_path, store, Sparsity("topk", K))
    done = study_features(FeaturesConfig(home=str(tmp_path), device="cpu"))
    assert done.figures["logit_weights"] is False
    page = done.report.read_text()
    assert "is an encoder, which ends in vectors" in page
    assert 'value="promotes"' not in page
    (index,) = script(done.report.parent / "data" / "index.js")
    assert index["promotes"] is None
    assert table_of(done.report.parent / "latents.csv")[0]["promotes"] == "[]"


def test_the_command_on_the_page_finds_the_report_again(home: Path) -> None:
    options = ["--run", "a-relu", "--home", str(home), "--device", "cpu", "--top", "3"]
    planned = main(["features", *options, "--dry-run"])
    report = Path(str(planned.result["report"]))
    assert planned.result["latents_total"] == S and not report.parent.exists()
    made = main(["features", *options, "--store", "llama-"])
    assert made.result["report"] == str(report) and not made.result["reused"]
    assert f"{S - 1} of {S} latents are active" in made.sentence
    words = shlex.split(json.loads((report.parent / "about.json").read_text())["command"])
    again = main(words[2:])
    assert again.result["reused"] and again.result["report"] == str(report)


def test_it_loads_few_modules(home: Path) -> None:
    """Each one is a file that a reader of this study must know of."""
    words = ["study", "features", "--run", "a-topk", "--home", str(home), "--device", "cpu"]
    code = f"""
import sys
from tendril.__main__ import main
sys.argv = ["tendril", *{[*words, "--overwrite", "--top", "2"]!r}]
try:
    main()
except SystemExit as ended:
    assert not ended.code
files = {{n: m.__file__ for n, m in sys.modules.items() if n.startswith("tendril.")}}
print(*sorted(n for n, file in files.items() if not file.endswith("__init__.py")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert "tendril.study.features.page" in loaded
    assert len(loaded) <= MODULES, loaded


def test_mistakes_are_told_in_a_sentence(home: Path, store: Store, tmp_path: Path) -> None:
    config = FeaturesConfig(run="a-topk", home=str(home), device="cpu")
    for change, said in (
        ({"part": "most"}, "--part must be one of train, held_out, all; got 'most'"),
        ({"limit": 0}, "--limit must be 1 or more; got 0"),
        ({"top": 0}, "--top must be 1 or more; got 0"),
        ({"window": 0}, "--window must be 1 or more; got 0"),
        ({"window": 2000}, "--window must be 1024 or less; got 2000"),
        ({"quantiles": 21}, "--quantiles must be 20 or less; got 21"),
    ):
        with pytest.raises(ConfigError, match=said):
            study_features(dataclasses.replace(config, **change))  # type: ignore[arg-type]
    sampled = make_store(tmp_path, per_input=4)
    with pytest.raises(ConfigError, match="some positions of each context only"):
        study_features(dataclasses.replace(config, store=str(sampled.path)))
    wide = make_run(tmp_path, store, Sparsity("topk", K), width=8)
    with pytest.raises(RunDamagedError, match="takes vectors of width 8"):
        study_features(dataclasses.replace(config, run=str(wide)))
