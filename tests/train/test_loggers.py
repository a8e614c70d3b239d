"""Curves of a run: metrics.csv always, and TensorBoard and W&B, which say the same and change
nothing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tendril.__main__ import run_stage
from tendril.data.errors import ConfigError
from tendril.train import loop
from tendril.train.loggers import Loggers
from tendril.train.loop import checked_source, train
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep

from ..helpers import sparse, wandb_files

FILES = {"train": "metrics.csv", "held_out": "evaluations.csv"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    sparse.make_store(tmp_path, {"here": sparse.vectors(1600, sparse.directions())})
    yield tmp_path
    if sys.modules.get("wandb"):
        sys.modules["wandb"].teardown()


def lines(run: Path, group: str) -> dict[int, dict[str, float]]:
    """A file of curves: step -> `group`/column -> value. No step may come twice."""
    read = list(csv.DictReader((run / FILES[group]).read_text().splitlines()))
    found = {
        int(line["step"]): {f"{group}/{n}": float(v) for n, v in line.items() if n != "step"}
        for line in read
    }
    assert len(found) == len(read)
    return found


def together(run: Path) -> dict[int, dict[str, float]]:
    """Both files of curves: step -> figures."""
    found = lines(run, "train")
    for step, figures in lines(run, "held_out").items():
        found[step] = found.get(step, {}) | figures
    return found


def of_wandb(about: dict[str, Any]) -> dict[int, dict[str, float]]:
    """The history of a W&B run: step -> figures. No step may come twice."""
    found = {
        line["_step"]: {name: v for name, v in line.items() if not name.startswith("_")}
        for line in about["history"]
    }
    assert len(found) == len(about["history"])
    return found


def of_tensorboard(run: Path) -> dict[int, dict[str, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert tag not in found.setdefault(event.step, {})
            found[event.step][tag] = event.value
    return found


def files_of(run: Path) -> dict[str, bytes]:
    """The run's own files; without seconds, and the digests that cover them."""
    found = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    result = json.loads(found.pop("result.json"))
    for name in ("seconds", "digest", "xxh128"):
        result.pop(name)
    found.pop("wandb.txt", None)
    del found["state.safetensors"]
    return found | {"result.json": json.dumps(result).encode()}


def test_wandb_holds_what_the_csv_holds(home: Path) -> None:
    config = sparse.tiny(home, eval_every=20)
    plain = train(config)
    before = files_of(plain.run)
    fields = {"wandb_project": "p", "wandb_entity": "team", "wandb_group": "g"}
    again = train(replace(config, overwrite=True, wandb=True, **fields))
    assert again.run == plain.run, "a logger is no part of a run's identity"
    assert files_of(again.run) == before
    (about,) = wandb_files.offline_runs(home)
    assert (about["project"], about["entity"], about["group"]) == ("p", "team", "g")
    assert about["name"] == again.run.name
    assert about["exit"] == 0
    assert of_wandb(about) == together(again.run)
    trained = json.loads((again.run / "config.json").read_text())
    assert about["config"] | trained == about["config"]
    for name in ("fvu", "l0", "dead", "vectors"):
        assert about["summary"][f"result/{name}"] == getattr(again, name)


def test_tensorboard_holds_what_the_csv_holds(home: Path) -> None:
    made = train(sparse.tiny(home, eval_every=20, tensorboard=True))
    found = of_tensorboard(made.run)
    results = {n: v for n, v in found[60].items() if n.startswith("result/")}
    assert results["result/fvu"] == pytest.approx(made.fvu)
    found[60] = {name: v for name, v in found[60].items() if name not in results}
    expected = together(made.run)
    assert found.keys() == expected.keys()
    for step in found:
        assert found[step] == pytest.approx(expected[step])


@pytest.mark.parametrize("stop", [7, 10, 33])
def test_a_stopped_run_goes_on_in_the_same_curves(
    home: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sparse.tiny(home, eval_every=10)
    plain = train(config).run
    expected = together(plain)
    shutil.rmtree(plain)
    took = loop.Running.take

    def stopping(running: Any, given: Any = None) -> Any:
        figures = took(running, given)
        if running.trainer.step == stop:
            running.leave()  # as W&B does at the end of a process
            raise RuntimeError("killed")
        return figures

    config = replace(config, wandb=True, tensorboard=True)
    monkeypatch.setattr(loop.Running, "take", stopping)
    with pytest.raises(RuntimeError, match="killed"):
        train(config)
    monkeypatch.setattr(loop.Running, "take", took)
    run = train(config).run
    assert together(run) == expected
    first, second = wandb_files.offline_runs(home)
    assert first["id"] == second["id"]
    told = (of_wandb(first), of_wandb(second))
    assert max(told[0]) <= stop < max(told[1])
    for step in told[0].keys() & told[1].keys():
        assert told[0][step] == told[1][step]
    assert told[0] | told[1] == expected
    found = of_tensorboard(run)
    assert found.keys() == expected.keys()
    ended = train(replace(config, overwrite=True)).run
    assert ended == run
    kept = (run / "wandb.txt").read_text().strip()
    assert kept != first["id"], "another training is another run"
    assert kept in {about["id"] for about in wandb_files.offline_runs(home)}


def test_a_killed_process_leaves_curves_that_go_on(home: Path) -> None:
    flags = ["--latents", "64", "--k", "3", "--steps", "1500", "--batch-size", "128"]
    flags += ["--log-every", "5", "--checkpoint-every", "10", "--wandb", "--home", str(home)]
    command = [sys.executable, "-m", "tendril", "train", "topk", "--device", "cpu", *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(home.glob("runs/*/state.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    (run,) = (home / "runs").iterdir()
    kept = (run / "wandb.txt").read_text().strip()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    step = int(done.stderr.split("from step ")[1].split(".")[0])
    assert sorted(lines(run, "train")) == list(range(5, 1501, 5))
    told = wandb_files.offline_runs(home)[-1]
    assert told["id"] == kept
    assert sorted(of_wandb(told)) == list(range(step + 5, 1501, 5))


def test_a_sweep_is_a_group_of_runs(home: Path) -> None:
    base = sparse.tiny(home, wandb=True, steps=10, threads=2)  # two steps at a time
    grid = SweepConfig(objectives=("topk", "relu_l1", "pca"), sparsities=("k=2,3", "l1=1"))
    made = sweep(replace(grid, base=base))
    found = wandb_files.offline_runs(home)
    names = {about["name"] for about in found}
    assert len(found) == len(names) == made.runs == 5
    assert {about["group"] for about in found} == {made.sweep.name}
    assert all(about["exit"] == 0 for about in found)
    assert all("result/fvu" in about["summary"] for about in found)
    plain = train(replace(base, wandb=False, objective="pca", k=2, order=base.order_seed))
    assert plain.reused, "the run has the name that it has without W&B"


class Writer:
    """Stands in for the SummaryWriter; `fails` says when."""

    fails = ""

    def __init__(self, folder: str, purge_step: int | None) -> None:
        if Writer.fails == "at once":
            raise OSError("no room")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if Writer.fails == "later" and step >= 20:
            raise OSError("no room")

    def flush(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("when", ["at once", "later"])
def test_an_error_of_a_logger_is_one_warning(
    home: Path, when: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "fails", when)
    grid = SweepConfig(sparsities=("k=2,3",), base=sparse.tiny(home, tensorboard=True))
    assert not sweep(grid).failed
    made = train(sparse.tiny(home, tensorboard=True, k=4))
    said = capsys.readouterr().err
    assert said.count("warning: --tensorboard has failed (OSError: no room). Training goes on") == 2
    assert len(lines(made.run, "train")) == 12


def test_wandb_that_cannot_begin_stops_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Online without a key: W&B refuses at once."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(home))  # no ~/.netrc
    made = train(sparse.tiny(home, wandb=True))
    assert made.steps == 60
    assert capsys.readouterr().err.count("warning: --wandb has failed") == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
@pytest.mark.parametrize("command", ["topk", "pca", "sweep"])
def test_a_missing_package_is_told_before_any_work(
    home: Path, name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"needs the package {name}.*`pip install {name}`"):
        run_stage(["train", command, f"--{name}", "--home", str(home)])
    assert not (home / "runs").exists()


def test_fields_of_wandb_need_the_switch(home: Path) -> None:
    with pytest.raises(ConfigError, match="--wandb-group must be given with --wandb"):
        checked_source(sparse.tiny(home, wandb_group="g"))


def test_nothing_is_imported_unless_it_is_asked_for(home: Path) -> None:
    code = (
        "import sys\nfrom tests.helpers import sparse\nfrom tendril.train.loop import train\n"
        "from pathlib import Path\ntrain(sparse.tiny(Path(sys.argv[1])))\n"
        "assert not {'wandb', 'tensorboard', 'tendril.train.loggers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(home)], check=True, capture_output=True)


def test_loggers_are_closed_with_the_run(home: Path) -> None:
    """After the end nothing more is written."""
    config = sparse.tiny(home, tensorboard=True)
    run = train(config).run
    loggers = Loggers(config, run, 60)
    loggers.finish()
    size = sum(path.stat().st_size for path in (run / "tensorboard").iterdir())
    loggers.add("train", {"step": 61, "fvu": 1.0})
    assert sum(path.stat().st_size for path in (run / "tensorboard").iterdir()) == size
