"""Text -> store: rows, their columns, and what happens when it is stopped or asked for nonsense."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.cli import run_command
from tendril.data.errors import OverflowingRowsError, StoreDamagedError, TendrilError
from tendril.data.store.reader import open_store
from tendril.harvest.__main__ import main
from tendril.harvest.config import LanguageConfig, VerifyConfig
from tendril.harvest.run import harvest, make_plan
from tendril.harvest.verify import verify_deep
from tendril.models.subjects.language import language_subject

from ..conftest import ROOT
from ..data.test_store import contents
from ..helpers import tiny_language

T = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def config(model: Path, tmp_path: Path) -> LanguageConfig:
    (tmp_path / "text").mkdir()
    for number, words in enumerate((70, 3, 200, 90)):
        (tmp_path / "text" / f"{number}.txt").write_text(tiny_language.text(words, number))
    return LanguageConfig(
        inputs=str(tmp_path / "text"),
        subject=str(model),
        sites=("resid_post.1", "resid_pre.0", "attn_out.2"),
        context=T,
        dtype="float32",
        device="cpu",
        batch_size=3,
        home=str(tmp_path),
    )


def test_rows_are_the_hidden_states_of_their_tokens(config: LanguageConfig) -> None:
    done = harvest(config)
    store = open_store(done.store)
    subject = language_subject(config.subject)
    tokens_BT = store.column("token").reshape(-1, T)
    assert done.rows == tokens_BT.size == (363 + 3) // (T - 1) * T
    assert (store.column("position").reshape(-1, T) == np.arange(T)).all()
    assert (tokens_BT[:, 0] == 1).all()
    with torch.no_grad():
        hidden = subject.module(
            torch.from_numpy(tokens_BT.copy()).long(), output_hidden_states=True
        ).hidden_states
    valid = store.column("valid")
    assert np.array_equal(valid, ~np.isin(store.column("token"), (0, 1, 2)))
    for site, layer in (("blocks.1.hook_resid_post", 2), ("blocks.0.hook_resid_pre", 0)):
        rows = store.read(site, slice(0, store.rows))
        theirs = hidden[layer].flatten(0, 1).numpy()
        assert np.abs(rows - theirs)[valid].max() <= 1e-5 * np.abs(theirs).max()
        assert np.isnan(rows[~valid]).all()
        assert store.moments(site).count == valid.sum()


def test_the_text_can_be_read_off_the_store(config: LanguageConfig) -> None:
    store = open_store(harvest(config).store)
    token, document = store.column("token"), store.column("document")
    tokenizer = language_subject(config.subject).tokenizer
    read = {
        n: tokenizer.decode(token[(document == n) & store.column("valid")]) for n in set(document)
    }
    files = sorted((Path(config.inputs)).iterdir())
    assert [read[n] for n in range(3)] == [f.read_text() for f in files[:3]]
    assert files[3].read_text().startswith(read[3])


def test_some_positions_of_each_context(config: LanguageConfig) -> None:
    whole = open_store(harvest(config).store)
    few = dataclasses.replace(config, per_input=4, skip_first=3)
    store = open_store(harvest(few).store)
    position = store.column("position").reshape(-1, 4)
    assert (np.diff(position, axis=1) > 0).all()
    assert len({tuple(row) for row in position.tolist()}) > 5
    assert store.column("valid").all()
    assert position.min() >= 3
    rows = store.column("input") * T + store.column("position")
    for site in store.sites:
        assert np.array_equal(store.read(site, slice(0, store.rows)), whole.read(site, rows))
    assert np.array_equal(store.column("token"), whole.column("token")[rows])


def test_the_same_harvest_is_the_same_store(config: LanguageConfig, tmp_path: Path) -> None:
    first = harvest(config)
    assert not first.reused
    assert harvest(config).reused
    assert harvest(dataclasses.replace(config, batch_size=7)).reused
    for change in (
        {"context": 12},
        {"skip_special": False},
        {"skip_first": 1},
        {"limit": 5},
        {"sites": ("resid_post.1",)},
        {"compute": "bfloat16"},
    ):
        other = make_plan(dataclasses.replace(config, **change))  # type: ignore[arg-type]
        assert other.location != first.store, change
    moved = tmp_path / "elsewhere"
    Path(config.inputs).rename(moved)
    assert harvest(dataclasses.replace(config, inputs=str(moved), name="x")).store.endswith(
        Path(first.store).name[-12:]
    )


def test_a_store_is_what_its_text_gives(config: LanguageConfig) -> None:
    path = harvest(config).store
    found = verify_deep(VerifyConfig(store=path, rows=10_000, home=config.home), path)
    assert (found.faults, found.moved) == ([], 0)
    assert found.rows == open_store(path).column("valid").sum()
    (Path(config.inputs) / "2.txt").write_text(tiny_language.text(200, 99))
    with pytest.raises((TendrilError, StoreDamagedError), match="Pass --inputs with the inputs"):
        verify_deep(VerifyConfig(store=path, home=config.home), path)


def test_what_the_model_writes(config: LanguageConfig) -> None:
    own = dataclasses.replace(config, inputs="self:3", limit=70)
    store = open_store(harvest(own).store)
    tokens_BT = store.column("token").reshape(-1, T)
    assert tokens_BT.shape == (70, T)
    assert len(np.unique(tokens_BT, axis=0)) == 70
    fewer = open_store(harvest(dataclasses.replace(own, limit=66)).store)
    assert np.array_equal(fewer.column("token").reshape(-1, T), tokens_BT[:66])
    other = open_store(harvest(dataclasses.replace(own, inputs="self")).store)
    assert not np.array_equal(other.column("token"), store.column("token"))


def test_drawn_tokens_have_the_models_probabilities(model: Path) -> None:
    from tendril.models.subjects.generate import written_by

    subject = language_subject(str(model))
    source = written_by(subject, "self", 2, 4096, torch.device("cpu"))
    drawn = np.array(list(source.documents()))[:, 0]
    with torch.no_grad():
        chances = torch.softmax(subject.module(torch.tensor([[1]])).logits[0, -1], -1).numpy()
    counted = np.bincount(drawn, minlength=53) / len(drawn)
    assert np.abs(counted - chances).max() < 4 * np.sqrt(chances.max() / len(drawn))


def test_an_encoder_reads_whole_contexts(config: LanguageConfig, tmp_path: Path) -> None:
    folder = tiny_language.save(tmp_path / "bert", "bert")
    own = dataclasses.replace(config, subject=str(folder), sites=("resid_post.-1",))
    store = open_store(harvest(own).store)
    tokens_BT = store.column("token").reshape(-1, T)
    assert (tokens_BT[:, 0] == 1).all()
    assert (tokens_BT[:, -1] == 2).all()
    subject = language_subject(str(folder))
    with torch.no_grad():
        last = subject.module(torch.from_numpy(tokens_BT.copy()).long()).last_hidden_state
    rows = store.read("blocks.2.hook_resid_post", slice(0, store.rows))
    valid = store.column("valid")
    np.testing.assert_allclose(rows[valid], last.flatten(0, 1).numpy()[valid], atol=1e-5)


def test_overflow_proposes_another_dtype(config: LanguageConfig, tmp_path: Path) -> None:
    large = language_subject(config.subject)
    embedding = large.module.get_input_embeddings()  # type: ignore[operator]
    embedding.weight.data *= 1e7
    large.module.save_pretrained(tmp_path / "large")  # type: ignore[operator]
    tiny_language.tokenizer().save_pretrained(tmp_path / "large")
    loud = dataclasses.replace(config, subject=str(tmp_path / "large"), dtype="float16")
    with pytest.raises(OverflowingRowsError, match="bfloat16"):
        harvest(loud)
    harvest(dataclasses.replace(loud, dtype="bfloat16"))


def test_a_stream_killed_and_begun_again(model: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [tiny_language.text(40 + i % 37, i) for i in range(200)]
    datasets.Dataset.from_dict({"text": rows}).save_to_disk(tmp_path / "set")
    config = LanguageConfig(
        inputs=str(tmp_path / "set"),
        subject=str(model),
        sites=("resid_post.0", "resid_post.2"),
        context=8,
        limit=800,
        streaming=True,
        batch_size=2,
        threads=1,
        device="cpu",
        home=str(tmp_path / "killed"),
    )
    flags = ["--inputs", config.inputs, "--subject", config.subject, "--sites", *config.sites]
    flags += ["--context", "8", "--limit", "800", "--streaming", "--batch-size", "2"]
    flags += ["--threads", "1", "--device", "cpu", "--home", config.home]
    threads = torch.get_num_threads()
    process = subprocess.Popen(
        [sys.executable, "-m", "tendril", "harvest", "language", *flags],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(Path(config.home).glob("store/*/records/*/zarr.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    store = next(Path(config.home).glob("store/*"))
    there = len(list(store.glob("records/*/zarr.json")))
    done = harvest(config)
    assert 0 < there < open_store(done.store).arrays.layout.shards
    whole = harvest(dataclasses.replace(config, home=str(tmp_path / "whole")))
    torch.set_num_threads(threads)
    assert contents(Path(done.store)) == contents(Path(whole.store))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--subject", ""], "--subject must be the folder of a language model"),
        (["--sites", "resid_post.9"], "has no site 'resid_post.9'; near names are"),
        (["--context", "65"], "--context must be at most 64, the tokens"),
        (["--per-input", "17"], "from 1 to 16, the tokens of a context; got 17"),
        (["--skip-first", "-1"], "--skip-first must be a whole number of at least 0"),
        (
            ["--inputs", "self"],
            "--inputs self has no end. Give the number of contexts with --limit",
        ),
        (["--inputs", "self:x", "--limit", "3"], "--inputs self:SEED must be an integer"),
        (["--inputs", "short.txt"], "shorter than one context of 16 tokens"),
        (["--inputs", "latin.txt"], "must be UTF-8; got the byte 0xe9 at 3"),
        (["--batch-size=-1"], "--batch-size must be from 1 to 65,536, or 0"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    flags: list[str],
    told: str,
    config: LanguageConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "short.txt").write_text("w1 w2")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    monkeypatch.chdir(tmp_path)
    given = ["--inputs", config.inputs, "--subject", config.subject, "--context", str(T)]
    argv = ["harvest", "language", *given, "--device", "cpu", "--home", config.home, *flags]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as left:
        run_command(main)
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_packed_text_stays_here_where_stores_lie_elsewhere(
    config: LanguageConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENDRIL_HOME", "memory://lab")
    plan = make_plan(dataclasses.replace(config, home=""))
    assert plan.location.startswith("memory://lab/store/tiny-text-")
    assert list((tmp_path / "tokens").glob("*/digest"))


def test_a_dry_run_says_what_it_would_cost(
    config: LanguageConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--inputs", config.inputs, "--subject", config.subject, "--context", str(T)]
    argv = ["harvest", "language", *given, "--home", config.home, "--device", "cpu", "--dry-run"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as left:
        run_command(main)
    assert left.value.code == 0
    assert '"rows": 384' in capsys.readouterr().out
    assert not list(Path(config.home).glob("tokens")) + list(Path(config.home).glob("store"))
