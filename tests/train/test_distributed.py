"""Two processes against one, with real processes and gloo."""

import csv
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import load_dictionary, read_tensors, write_tensors
from tendril.train.config import TrainConfig
from tendril.train.distributed import refuse_launch
from tendril.train.loop import run_folder, train
from tendril.train.trainer import Ranks
from tendril.train.vectors import source_of, store_of

from ..helpers import ranks, sparse

pytestmark = pytest.mark.slow  # many launches of torchrun

ROOT = Path(__file__).parents[2]
SAME = ("topk", "relu_l1", "gated", "jumprelu")


def launch(home: Path, objective: str, stop: int | None = None) -> subprocess.CompletedProcess[str]:
    return torchrun(
        "tests.helpers.ranks", str(home), objective, *([] if stop is None else [str(stop)])
    )


def torchrun(module: str, *asked: str) -> subprocess.CompletedProcess[str]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return subprocess.run(
        [sys.executable, *launcher, "-m", module, *asked],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a single process."""
    home = tmp_path_factory.mktemp("one")
    sparse.make_store(home, {"here": sparse.vectors(3200, sparse.directions())})
    for objective in SAME:
        train(ranks.config(home, objective))
    return home


@pytest.fixture(scope="module")
def two(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two processes, on the same store."""
    home = tmp_path_factory.mktemp("two")
    (home / "store").symlink_to((one / "store").resolve())
    done = launch(home, ",".join([*SAME, "batch_topk"]))
    assert done.returncode == 0, done.stderr
    return home


def lines(run: Path) -> list[dict[str, float]]:
    text = (run / "metrics.csv").read_text().splitlines()
    return [{name: float(value) for name, value in line.items()} for line in csv.DictReader(text)]


@pytest.mark.parametrize("objective", SAME)
def test_two_processes_go_the_way_of_one(one: Path, two: Path, objective: str) -> None:
    config = ranks.config(one, objective)
    store = store_of(config)
    runs = [
        home / "runs" / run_folder(config, source_of(config, store), n).name
        for home, n in ((one, 1), (two, 2))
    ]
    alone, together = (lines(run) for run in runs)
    assert len(alone) == len(together) == config.steps
    for a, b in zip(alone, together, strict=True):
        assert (a["step"], a["vectors"]) == (b["step"], b["vectors"])
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-4)
        assert b["fvu"] == pytest.approx(a["fvu"], rel=1e-3, abs=1e-5)
        assert b["l0"] == pytest.approx(a["l0"], rel=5e-3)
        assert b["dead"] == pytest.approx(a["dead"], abs=1 / 64)
    if objective in ("topk", "relu_l1"):
        assert any(line["dead"] > 0 for line in alone), "a test of AuxK and of resampling"
    there = [load_dictionary(run) for run in runs]
    torch.testing.assert_close(there[1].W_dec, there[0].W_dec, rtol=0, atol=5e-3)


def test_batch_topk_keeps_k_of_each_process(one: Path, two: Path) -> None:
    config = ranks.config(one, "batch_topk")
    run = two / "runs" / run_folder(config, source_of(config, store_of(config)), 2).name
    assert (run / "result.json").exists()
    assert lines(run)[-1]["l0"] == pytest.approx(3, abs=0.2)


def test_the_number_of_processes_names_the_run(one: Path) -> None:
    config = ranks.config(one, "topk")
    store = store_of(config)
    assert len({run_folder(config, source_of(config, store), n).name for n in (1, 2, 3)}) == 3


def test_rank_0_writes_and_prints_what_is_there_already(one: Path, two: Path) -> None:
    again = launch(two, "topk")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("exists already") == 1
    assert sorted(line.split()[0] for line in again.stdout.splitlines()) == ["0", "1"]
    assert len(list((two / "runs").iterdir())) == len(SAME) + 1


def test_a_stopped_run_goes_on_bit_for_bit(one: Path, two: Path, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to((one / "store").resolve())
    assert launch(tmp_path, "topk", stop=32).returncode == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "result.json").exists()
    done = launch(tmp_path, "topk")
    assert done.returncode == 0, done.stderr
    assert "from step 28" in done.stderr
    whole = two / "runs" / run.name
    for name in ("dictionary.safetensors", "metrics.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    tensors, others = (read_tensors(r / "state.safetensors")[0] for r in (run, whole))
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_the_command_deals_the_stores_chunks(tmp_path: Path) -> None:
    sparse.make_store(tmp_path, {"here": sparse.vectors(40_000, sparse.directions())})
    fields = {"latents": 64, "k": 3, "steps": 100, "batch_size": 256, "device": "cpu"}
    flags = [part for name, value in fields.items() for part in (f"--{name}", str(value))]
    done = torchrun("tendril", "train", "topk", "--home", str(tmp_path), *flags)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert (made["steps"], made["vectors"]) == (100, 25_600)
    alone = train(TrainConfig(home=str(tmp_path), **fields))  # type: ignore[arg-type]
    assert alone.run != Path(made["run"])
    assert made["fvu"] == pytest.approx(alone.fvu, rel=0.1)


def test_no_rank_goes_on_before_all_are_there() -> None:
    """Rank 1 comes two seconds late, and rank 0 has waited for it."""
    done = torchrun("tests.helpers.late_rank")
    assert done.returncode == 0, done.stderr
    waited = dict(line.split() for line in done.stdout.splitlines())
    assert float(waited["0"]) > 1.5 > float(waited["1"])


def test_a_sweep_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_launch("a sweep")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="a sweep must run in one process; got 2"):
        refuse_launch("a sweep")


def test_a_batch_comes_out_even() -> None:
    assert Ranks(1, 4).rows_of(4096) == 1024
    with pytest.raises(ConfigError, match=r"multiple of the 3 processes.*Choose 4098"):
        Ranks(0, 3).rows_of(4096)


def test_as_many_processes_go_on_as_began(one: Path, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to((one / "store").resolve())
    config = ranks.config(tmp_path, "topk")
    assert ranks.run(tmp_path, "topk", stop=8) is None
    state = run_folder(config, source_of(config, store_of(config))) / "state.safetensors"
    tensors, numbers = read_tensors(state)
    write_tensors(state, tensors, numbers | {"readers": [numbers["reader"]] * 2})
    with pytest.raises(ConfigError, match=r"number of processes must be 2.*got 1"):
        train(config)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_says_at_once_whom_it_waits_for(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RANK and WORLD_SIZE may be left over from another command."""
    sparse.make_store(tmp_path, {"here": sparse.vectors(400, sparse.directions())})
    config = TrainConfig(home=str(tmp_path), latents=8, k=2, steps=2, batch_size=64, device="cpu")
    monkeypatch.setenv("RANK", str(rank))
    with pytest.raises(ConfigError, match="rank 1 of 1") if rank else nullcontext():
        train(config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT must say where the 2"):
        train(config)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29511")

    def tired(_: str) -> None:
        raise KeyboardInterrupt  # instead of waiting

    monkeypatch.setattr("torch.distributed.init_process_group", tired)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert (
        f"rank {rank} of 2 (from RANK and WORLD_SIZE of the environment) waits for the other ranks "
        "at 127.0.0.1:29511. If it is the only process"
    ) in capsys.readouterr().err
    for name, value in (("WORLD_SIZE", "two"), ("RANK", "-1"), ("RANK", "2")):
        monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match=r"RANK and WORLD_SIZE"):
            train(config)
