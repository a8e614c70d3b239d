"""JSON files of runs, sweeps and reports of earlier versions, without digests, with an entry that
is missing or of another type: one sentence that names the file, or a result; never a traceback.

As a program, tries every value for every entry and counts: python -m tests.train.test_malformed."""

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tendril.data.errors import RunDamagedError, TendrilError
from tendril.data.listing.describe import describe, overview
from tendril.data.listing.entries import Entry, find_entry
from tendril.data.listing.tables import description
from tendril.models.dictionaries.checkpoint import (
    load_dictionary,
    load_frequency,
    read_config,
    read_tensors,
    write_tensors,
)
from tendril.models.dictionaries.run import load_run
from tendril.study.compare.config import CompareConfig
from tendril.study.compare.study import CompareStudy
from tendril.study.core.index import write_index
from tendril.study.core.stores import common_site, common_store, is_language_run, trained_sites
from tendril.study.core.study import run_study
from tendril.train.config import TrainConfig, run_label
from tendril.train.exchange import export_run
from tendril.train.loop import train
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep

from ..helpers import sparse

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2.5, 10**12, "", "x", "../../x", [], [1], ["a"], [None], {}, {"a": 1}),
    *({"a": None}, [[1]], "NaN"),
)
GONE = object()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("home"))


def config_of(home: Path) -> TrainConfig:
    return sparse.tiny(home, latents=8, k=2, steps=4, batch_size=64, checkpoint_every=2)


def make(home: Path) -> Path:
    """Two runs, a sweep and a report, none with digests."""
    sparse.make_store(home, {"here": sparse.vectors(800, sparse.directions(12, 8))})
    train(replace(config_of(home), name="first"))
    train(replace(config_of(home), name="second", seed=1))
    sweep(SweepConfig(sparsities=("k=1,2",), base=config_of(home)))
    run_study(CompareStudy(), compared(home))
    for path in home.rglob("*.json"):
        value = json.loads(path.read_text())
        if value.pop("digest", None):
            del value["xxh128"]
            path.write_text(json.dumps(value))
    for state in home.glob("runs/*/state.safetensors"):
        tensors, numbers = read_tensors(state)
        del numbers["files"], numbers["run"]
        write_tensors(state, tensors, numbers)
    return home


def compared(home: Path) -> CompareConfig:
    return CompareConfig(run=("first", "second"), home=str(home), device="cpu")


def calls(home: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What reads the files: (what it is, a call)."""
    (run,) = (home / "runs").glob("first-*")
    (swept,) = (home / "runs").glob("sweep-*")
    (report,) = (home / "reports").glob("compare-*")
    yield "load_dictionary", lambda: load_dictionary(run)
    yield "load_frequency", lambda: load_frequency(run)
    yield "load_run", lambda: (load_run(run).figures, run_label(load_run(run).config))
    yield "train", lambda: train(replace(config_of(home), name="first")).outcome(str(home))
    yield "export", lambda: export_run(run, Path(tempfile.mkdtemp(dir=home)) / "out")
    yield "store", lambda: common_store([run], str(home), "")
    yield "sites", lambda: trained_sites(run, common_store([run], str(home), ""), 8)
    yield "site", lambda: (common_site([run]), is_language_run(run))
    yield "compare", lambda: run_study(CompareStudy(), compared(home)).outcome()
    again = replace(compared(home), overwrite=True)
    yield "compare again", lambda: run_study(CompareStudy(), again).outcome()
    yield "index", lambda: write_index(str(home))
    for folder in (run, swept, report):
        entry = find_entry(str(folder))
        yield (
            f"info {folder.name}",
            lambda entry=entry: (overview(entry), description(describe(entry))),
        )


def told(entry: Entry) -> tuple[dict[str, Any], str]:
    return overview(entry), description(describe(entry))


def changes(value: Any) -> Iterator[Any]:
    """A JSON object with one entry, at any depth of objects, removed or replaced."""
    for name, inner in value.items():
        for other in (GONE, *VALUES):
            changed = {n: v for n, v in value.items() if n != name}
            yield changed if other is GONE else changed | {name: other}
        if isinstance(inner, dict):
            yield from ({**value, name: changed} for changed in changes(inner))


def attack(home: Path, every: int = 1) -> Counter[str]:
    """Read everything after each `every`-th change of each file. Counts `sentence`, `result`, and
    tracebacks by name."""
    found: Counter[str] = Counter()
    paths = [
        path
        for pattern in ("runs/first-*/*.json", "runs/sweep-*/*.json", "reports/compare-*/*.json")
        for path in sorted(home.glob(pattern))
    ]
    for path in paths:
        kept = path.read_bytes()
        texts = [json.dumps(value) for value in changes(json.loads(kept))]
        texts += ["", "[]", "1", "{", '{"a": ' + "[" * 100_000, "\udcff"]
        for text in texts[::every] + texts[-6:]:
            others = {p: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}
            path.write_bytes(text.encode(errors="surrogateescape"))
            for name, call in calls(home):
                try:
                    call()
                    found["result"] += 1
                except TendrilError as error:
                    found["sentence"] += 1
                    assert str(error).endswith("."), error
                except Exception as error:
                    found[f"{path.name} {name}: {type(error).__name__}: {error} {text[:60]}"] += 1
                path.write_bytes(text.encode(errors="surrogateescape"))
            for other, content in others.items():
                other.write_bytes(content)
    return found


@pytest.mark.many_steps
def test_a_wrong_entry_never_ends_in_a_traceback(home: Path) -> None:
    found = attack(home, every=97)
    assert found.keys() <= {"sentence", "result"}, found
    assert found["sentence"] > 50


def test_a_run_of_an_earlier_version_is_read_and_continued(home: Path, capsys: Any) -> None:
    (run,) = (home / "runs").glob("second-*")
    weights = load_dictionary(run).state_dict()
    assert load_run(run).figures["steps"] == 4 and load_frequency(run).shape == (8,)
    (run / "result.json").unlink()
    again = train(replace(config_of(home), name="second", seed=1))
    assert "without a digest" in capsys.readouterr().err
    for name, tensor in load_dictionary(again.run).state_dict().items():
        torch.testing.assert_close(tensor, weights[name])


def test_a_sentence_names_the_file_and_the_entry(home: Path, tmp_path: Path) -> None:
    (first,) = (home / "runs").glob("first-*")
    run = tmp_path / first.name
    shutil.copytree(first, run)
    (run / "result.json").unlink()
    config = json.loads((run / "config.json").read_text())
    for change, said in (
        (
            {"site": 3},
            r"site in .*config\.json must be a text or null; got 3\. Train",
        ),
        ({"sites": {"a": "b"}}, r"sites in .*config\.json must be an object of a whole number or"),
        ({"dictionary": {"width": 8}}, r"config\.json must have the entry dictionary\.latents"),
    ):
        (run / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(RunDamagedError, match=said):
            load_dictionary(run)
    (run / "config.json").write_text(json.dumps({"dictionary": config["dictionary"]}))
    with pytest.raises(RunDamagedError, match=r"config\.json must have the entry 'site'; it has"):
        read_config(run)["site"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        counted = attack(make(Path(folder)), int(sys.argv[1]) if len(sys.argv) > 1 else 1)
        for name, count in counted.most_common():
            print(count, name)
