"""Digests of what a home holds, and what a comparison of two snapshots finds."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tendril.bench.config import SnapshotBench
from tendril.bench.snapshot import commands, last_words, measure, run_commands
from tendril.bench.snapshot_commands import COMMANDS, LANGUAGE
from tendril.bench.snapshot_digests import differences, parts_of, snapshot_of, stable
from tendril.data.errors import ConfigError

from ..helpers import sparse_store

DIGEST = "0123456789ab"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a store, a run, a run that was stopped, and a report."""
    home = tmp_path_factory.mktemp("home")
    store = sparse_store.harvest(home).name
    write(home, DIGEST, store)
    (home / "runs" / f"begun-{DIGEST}").mkdir()
    config = {"objective": "topk", "store": store}
    (home / "runs" / f"begun-{DIGEST}" / "config.json").write_text(json.dumps(config))
    return home


def write(home: Path, digest: str, store: str, fvu: float = 0.5, seconds: float = 1.0) -> None:
    """A run and a report whose identity is `digest`."""
    run, report = home / "runs" / f"demo-{digest}", home / "reports" / f"curves-{digest}"
    run.mkdir(parents=True)
    config = {"objective": "topk", "store": store, "store_path": str(home), "device": "cpu"}
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").write_text(json.dumps({"fvu": fvu, "seconds": seconds}))
    (run / "metrics.csv").write_text(f"step,seconds\n1,{seconds}\n")
    weights = {"W_enc": torch.full((2, 3), fvu), "b_enc": torch.zeros(3)}
    save_file(weights, run / "dictionary.safetensors", metadata={"seconds": str(seconds)})
    report.mkdir(parents=True)
    (report / "result.json").write_text(json.dumps({"run": run.name, "units": [{"fvu": fvu}]}))
    (report / "units.csv").write_text(f"unit,run,fvu\n0,{run.name},{fvu}\n1,{run.name},2\n")
    (report / "index.html").write_text(f"<html>{seconds}")
    np.savez(report / "tuning.npz", curve=np.full(3, fvu), angle=np.arange(3))


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


def test_what_is_finished_is_in_a_snapshot_by_parts(home: Path) -> None:
    entries = {e["kind"]: e for e in snapshot_of(str(home))}
    assert len(snapshot_of(str(home))) == 3  # without the run that was stopped
    assert entries["run"]["files"].keys() == {
        "config.json:objective",
        "config.json:store",
        "dictionary.safetensors:W_enc",
        "dictionary.safetensors:b_enc",
        "result.json:fvu",
    }
    assert entries["report"]["files"].keys() == {
        "result.json:run",
        "result.json:units",
        "tuning.npz:angle.npy",
        "tuning.npz:curve.npy",
        "units.csv:fvu",
        "units.csv:run",
        "units.csv:unit",
    }
    assert "activations/sine/c/0/0" in entries["store"]["files"]
    assert all(len(d) == 16 for e in entries.values() for d in e["files"].values())


def test_names_times_and_places_make_no_difference(home: Path, tmp_path: Path) -> None:
    before = snapshot_of(str(home))
    moved = tmp_path / "moved"
    (store,) = (home / "store").iterdir()
    write(moved, "ba9876543210", store.name, seconds=2.0)
    shutil.copytree(home / "store", moved / "store")
    assert differences(snapshot_of(str(moved)), before, "before") == []


def test_each_difference_is_named(home: Path) -> None:
    before = snapshot_of(str(home))
    (store,) = (home / "store").iterdir()
    sparse_store.flip(store / "activations/sine/c/2/0")
    shutil.rmtree(home / "reports")
    shutil.rmtree(home / "runs" / f"demo-{DIGEST}")
    write(home, DIGEST, store.name, fvu=0.25)
    (home / "runs" / f"demo-{DIGEST}" / "extra.json").write_text('{"a": 1}')
    (home / "reports" / f"curves-{DIGEST}").rename(home / "reports" / f"joint-{DIGEST}")
    found = differences(snapshot_of(str(home)), before, "before.json")
    run = f"run demo-{DIGEST}: "
    assert found == [
        f"report curves-{DIGEST} is only in before.json",
        f"report joint-{DIGEST} is not in before.json",
        run + "dictionary.safetensors:W_enc differs",
        run + "extra.json:a is new",
        run + "result.json:fvu differs",
        f"store {store.name}: activations/sine/c/2/0 differs",
    ]


def test_among_several_of_a_name_equals_belong_together(home: Path) -> None:
    (store,) = (home / "store").iterdir()
    write(home, "111111111111", store.name, fvu=0.1)
    before = snapshot_of(str(home))
    after = copy.deepcopy(before)
    for entry in after:
        entry["name"] = {f"demo-{DIGEST}": "demo-999999999999"}.get(entry["name"], entry["name"])
    assert differences(list(reversed(after)), before, "before") == []


def test_volatile_values_are_left_out_at_any_depth() -> None:
    value: Any = {"seconds": 1, "a": [{"reused": True, "run": f"x-{DIGEST}", "n": 1.5}]}
    assert stable(value) == {"a": [{"run": "x", "n": 1.5}]}
    assert dict(parts_of("data.js", f"f('x-{DIGEST}')".encode())) == {"": b"f('x')"}


def test_the_command_writes_compares_and_refuses(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "before.json"
    first = measure(SnapshotBench(home=str(home), out=str(out)))
    assert first.result["entries"] == 3
    assert f"--against {out}" in first.next_command
    assert "all equal" in measure(SnapshotBench(home=str(home), against=str(out))).sentence
    (home / "runs" / f"demo-{DIGEST}" / "result.json").write_text('{"fvu": 9}')
    with pytest.raises(ConfigError, match="1 differences or failures"):
        measure(SnapshotBench(home=str(home), against=str(out)))
    with pytest.raises(ConfigError, match="--against must be a file"):
        measure(SnapshotBench(home=str(home), against=str(tmp_path / "nowhere")))


def test_a_command_that_fails_is_told_and_the_others_run(tmp_path: Path) -> None:
    failures = run_commands(str(tmp_path), ["data info nowhere", "data ls", "data lss"])
    assert len(failures) == 2
    assert "data info nowhere failed with status 2: error: there is no store" in failures[0]
    assert last_words("╭─ Error ─╮\n│ wrong │\n╰───╯\n") == "wrong"
    assert last_words("") == "no message"


def test_language_commands_need_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENDRIL_SHARED", str(tmp_path))
    assert commands() == list(COMMANDS)
    for name in ("lm/stories260K", "text/wikitext2_valid.txt"):
        (tmp_path / name).mkdir(parents=True)
    assert len(commands()) == len(COMMANDS) + len(LANGUAGE)
    assert f"--subject {tmp_path}/lm/stories260K" in " ".join(commands())
    assert all(c.startswith("harvest") for c in commands(("harvest",)))
