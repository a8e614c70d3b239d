"""Sweeps: each dictionary is the one that is trained alone, and what is told of all of them."""

import csv
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tendril.data.device import cpu_threads
from tendril.data.errors import ConfigError, StoreLockedError
from tendril.data.store.atomic import locked
from tendril.models.dictionaries.checkpoint import load_dictionary, read_tensors
from tendril.train.config import BASELINES, TrainConfig
from tendril.train.loop import run_folder, train
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.estimate import estimate
from tendril.train.sweep.plot import Curve, plot_front, spaced
from tendril.train.sweep.recipes import SWEEPS
from tendril.train.sweep.sweep import side_by_side, sweep
from tendril.train.sweep.table import Row, curves_of, points_of
from tendril.train.trainer import Trainer
from tendril.train.vectors import source_of, store_of

from ..helpers import sparse


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    sparse.make_store(home, {"here": sparse.vectors(8000, sparse.directions())})
    return home / "store"


@pytest.fixture
def home(stores: Path, tmp_path: Path) -> Path:
    """The same store in a home without runs."""
    (tmp_path / "store").symlink_to(stores.resolve())
    return tmp_path


@pytest.fixture
def other(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """And in another one."""
    home = tmp_path_factory.mktemp("other")
    (home / "store").symlink_to(stores.resolve())
    return home


def grid(home: Path, **fields: Any) -> SweepConfig:
    """Four runs of TopK in pairs of one size, and one each of three objectives."""
    settings: dict[str, Any] = {
        "objectives": ("topk", "batch_topk", "relu_l1", "pca"),
        "sizes": (64,),
        "sparsities": ("k=2,3", "l1=1"),
        "seeds": (0, 1),
        "spread": "middle",
    }
    return SweepConfig(base=sparse.tiny(home, steps=30, order=5), **(settings | fields))


def assert_close(one: Path, another: Path) -> None:
    assert one.name == another.name
    for file in ("dictionary.safetensors", "latents.safetensors"):
        ours, theirs = (read_tensors(run / file)[0] for run in (one, another))
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    results = [json.loads((run / "result.json").read_text()) for run in (one, another)]
    for name in ("fvu", "l0", "dead", "steps", "vectors", "eval_rows"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-4), name


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.many_steps
def test_every_dictionary_is_the_one_trained_alone(home: Path, other: Path, threads: int) -> None:
    """One after the other on one thread, and side by side on several."""
    config = grid(home)
    config = replace(config, base=replace(config.base, threads=threads))
    result = sweep(config)
    runs = config.runs()
    assert result.runs == result.trained == len(runs) == 10
    assert not result.failed
    for run in runs:
        alone = train(replace(run, home=str(other))).run
        assert_close(home / "runs" / alone.name, alone)
        assert load_dictionary(home / "runs" / alone.name).latents == 64
    again = sweep(config)
    assert (again.sweep, again.runs, again.trained) == (result.sweep, 10, 0)


@pytest.mark.parametrize(
    "objective",
    [
        "topk",
        "jumprelu",
        *(pytest.param(o, marks=pytest.mark.slow) for o in ("batch_topk", "gated")),
    ],
)
@pytest.mark.many_steps
def test_without_b_dec_it_stays_zero_alone_in_a_sweep_and_after_a_stop(
    home: Path, other: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweeps of TopK stack runs. A resumed run ends where one without a stop does."""
    base = sparse.tiny(home, steps=20, order=5, bias="none", checkpoint_every=10)
    config = SweepConfig((objective,), (32,), ("k=2", "l1=1", "l0=0.1"), (0, 1), base=base)
    update, taken = Trainer.update, [0]

    def stopping(trainer: Trainer, *args: Any) -> None:
        update(trainer, *args)
        taken[0] += 1
        if taken[0] == 25:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(config)
    monkeypatch.undo()
    sweep(config)
    for run in config.runs():
        alone = train(replace(run, home=str(other))).run
        together = home / "runs" / alone.name
        for folder in (together, alone):
            tensors, _ = read_tensors(folder / "dictionary.safetensors")
            assert (tensors["b_dec"] == 0).all() and (tensors["W_dec"] != 0).any()
        assert_close(together, alone)
    trained = train(replace(config.runs()[0], bias="zero")).run
    assert (read_tensors(trained / "dictionary.safetensors")[0]["b_dec"] != 0).any()


def test_a_sweep_reads_the_store_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many batches as steps, and the one that all start from."""
    from tendril.data.store.reader import Batches

    taken: list[int] = []
    advance = Batches.__next__

    def counting(batches: Batches) -> Any:
        taken.append(1)
        return advance(batches)

    config = grid(home, objectives=("topk", "relu_l1"), seeds=(0, 1, 2), spread="all")
    held_out = 8000 // 20 // 128 + 1
    monkeypatch.setattr(Batches, "__next__", counting)
    assert sweep(config).runs == 9
    assert len(taken) <= 30 + 1 + held_out + 1


@pytest.mark.parametrize("stop", [3, 11, 29])
@pytest.mark.many_steps
def test_a_stopped_sweep_goes_on_to_the_same_end(
    home: Path, other: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within a step: some runs have taken it and written a checkpoint, others not."""
    config = grid(home, objectives=("topk", "relu_l1"))
    whole = sweep(replace(config, base=replace(config.base, home=str(other))))
    update, taken = Trainer.update, [0]

    def stopping(trainer: Trainer, *args: Any) -> None:
        update(trainer, *args)
        taken[0] += 1
        if taken[0] == stop * len(config.runs()) + 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(config)
    monkeypatch.undo()
    gone_on = sweep(config)
    assert gone_on.sweep.name == whole.sweep.name
    for run in config.runs():
        folder = run_folder(run, source_of(run, store_of(config.base)))
        assert_close(folder, other / "runs" / folder.name)
        lines = (folder / "metrics.csv").read_text().splitlines()
        assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(5, 31, 5))


def test_a_run_of_a_sweep_can_be_gone_on_with_alone(
    home: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = grid(home, objectives=("topk",))
    take = Trainer.update

    def stopping(trainer: Trainer, *args: Any) -> None:
        if trainer.step == 20:
            raise KeyboardInterrupt
        take(trainer, *args)

    monkeypatch.setattr(Trainer, "update", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(config)
    monkeypatch.undo()
    run = config.runs()[0]
    whole = train(replace(run, home=str(other))).run
    assert_close(train(run).run, whole)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_that_diverges_does_not_stop_the_others(
    home: Path, capsys: pytest.CaptureFixture[str], threads: int
) -> None:
    config = grid(home, objectives=("relu_l1",), sparsities=("l1=1,1e30",), seeds=(0,))
    result = sweep(replace(config, base=replace(config.base, lr=0.01, threads=threads)))
    (name,) = result.failed
    assert result.runs == result.trained == 1
    assert "diverged" in result.failed[name]
    assert f"{name} is left out: training has diverged" in capsys.readouterr().err
    assert not (home / "runs" / name / "result.json").exists()


def test_where_all_diverge_the_sweep_does(home: Path) -> None:
    config = grid(home, objectives=("relu_l1",), sparsities=("l1=1e30",), seeds=(0,))
    with pytest.raises(ConfigError, match="diverged"):
        sweep(replace(config, base=replace(config.base, lr=1e30)))


def test_the_table_says_what_the_runs_say(home: Path) -> None:
    result = sweep(grid(home, objectives=("topk", "pca"), spread="all"))
    table = json.loads((result.sweep / "table.json").read_text())
    with (result.sweep / "runs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(table["runs"]) == 2 * 2 + 2
    for line, row in zip(lines, table["runs"], strict=True):
        told = json.loads((home / "runs" / row["run"] / "result.json").read_text())
        assert row["fvu"] == told["fvu"] == float(line["fvu"])
        assert row["l0"] == told["l0"] == float(line["l0"])
    assert [p["seeds"] for p in table["points"]] == [2, 2, 1, 1]
    with Image.open(result.sweep / "front.png") as picture:
        assert picture.width > 1000


def test_a_point_is_the_median_and_the_range_of_its_seeds() -> None:
    def row(seed: int, fvu: float, **fields: Any) -> Row:
        numbers: dict[str, Any] = {"l0": 8.0 + seed, "dead": 0.0, "vectors": 1, "seconds": 1.0}
        named: dict[str, Any] = {"objective": "topk", "latents": 64, "sparsity": "k=8"}
        return Row(run="r", seed=seed, fvu=fvu, **(numbers | named | fields))

    points = points_of([row(0, 0.3), row(1, 0.1), row(2, 0.2), row(0, 0.9, sparsity="k=9")])
    assert [(p.sparsity, p.seeds, p.fvu, p.fvu_range) for p in points] == [
        ("k=8", 3, 0.2, (0.1, 0.3)),
        ("k=9", 1, 0.9, (0.9, 0.9)),
    ]
    assert points[0].l0_range == (8.0, 10.0)


def test_the_grid_holds_every_run_once() -> None:
    def runs(**fields: Any) -> list[TrainConfig]:
        return SweepConfig(**fields).runs()

    objectives: Any = ("topk", "relu_l1", "pca")
    sparsities = ("k=4,8,16", "l1=1,2")
    both = runs(objectives=objectives, sparsities=sparsities, sizes=(64, 128), seeds=(0, 1))
    assert len(both) == 2 * 2 * 3 + 2 * 2 * 2 + 3
    assert {run.order for run in both} == {0}
    middle = runs(objectives=objectives, sparsities=sparsities, seeds=(0, 1, 2), spread="middle")
    assert [run.k for run in middle if run.objective == "topk"] == [4, 8, 8, 8, 16]
    assert [run.l1 for run in middle if run.objective == "relu_l1"] == [1.0, 2.0, 2.0, 2.0]
    assert len(runs(objectives=("topk",), sparsities=("l1=1,2",))) == 1, "not varied"
    assert runs(objectives=("topk",), sparsities=("k=4", "k=8")) == runs(
        objectives=("topk",), sparsities=("k=4,8",)
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sparsities": ("kk=3",)}, r"FIELD=VALUE,VALUE with a field of k, l1.*near it: k"),
        ({"sparsities": ("k",)}, r"got 'k'"),
        ({"sparsities": ("k=a",)}, r"must give numbers.*got 'k=a'.*k=8,16,32"),
        ({"objectives": ("topkk",)}, r"got 'topkk' \(near it: topk"),
        ({"sparsities": ("k=65",)}, r"--k must be from 1 to 64"),
    ],
)
def test_grids_that_cannot_be_used(home: Path, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sweep(grid(home, **fields))
    assert not (home / "runs").exists()


def test_a_run_that_is_being_trained_is_not_trained_twice(home: Path) -> None:
    config = grid(home, objectives=("topk",))
    run = run_folder(config.runs()[1], source_of(config.base, store_of(config.base)))
    run.mkdir(parents=True)
    with locked(run), pytest.raises(StoreLockedError, match="another process is training"):
        sweep(config)


def test_a_dictionary_that_is_all_dead_is_in_the_table_and_not_in_the_picture() -> None:
    numbers: dict[str, Any] = {"dead": 1.0, "vectors": 1, "seconds": 1.0, "seed": 0, "latents": 8}
    rows = [
        Row(run=f"{l0}", objective="topk", sparsity=f"k={l0}", l0=l0, fvu=0.5, **numbers)
        for l0 in (0.0, 2.0)
    ]
    assert [point.l0 for point in points_of(rows)] == [0.0, 2.0]
    assert [curve.l0 for curve in curves_of(points_of(rows))] == [[2.0]]


@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_picture_of_many_curves_and_of_none(count: int, tmp_path: Path) -> None:
    l0, fvu = ([4.0, 8.0], [(3.0, 5.0), (7.0, 9.0)]), ([0.2, 0.1], [(0.1, 0.3), (0.05, 0.3)])
    curves = [Curve(f"c{n}", f"c{n % 3}", n > 9, *l0, *fvu) for n in range(count)]
    plot_front(tmp_path / "front.png", curves, "title")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.width > 1000


def test_names_of_curves_are_moved_apart_and_stay_in_the_picture() -> None:
    heights = spaced([0.1, 0.11, 0.5, 0.97, 0.98, 0.99], 0.05)
    assert heights == pytest.approx([0.1, 0.15, 0.5, 0.9, 0.95, 1.0])


def test_the_command_ends_in_json(home: Path) -> None:
    flags = "--sparsities k=2,3 --seeds 0 1 --latents 64 --steps 4 --batch-size 128 --device cpu"
    done = subprocess.run(
        [sys.executable, "-m", "tendril", "train", "sweep", "--home", str(home), *flags.split()],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["runs"], told["trained"], told["failed"]) == (4, 4, 0)
    assert (Path(told["sweep"]) / "front.png").is_file()


def test_steps_side_by_side_have_a_share_of_the_threads_each() -> None:
    """And whoever asked for them has as many as before."""
    meeting = threading.Barrier(2, timeout=30)  # passed only by two at a time

    def share(_: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    with cpu_threads(2):
        with side_by_side(torch.device("cpu")) as each:
            assert list(each(share, range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
    with cpu_threads(1), side_by_side(torch.device("cpu")) as each:
        assert each is map


def test_a_dry_run_makes_nothing_and_tells_what_is_left(home: Path) -> None:
    config = grid(home)
    told = estimate(config).result
    assert (told["dry_run"], told["runs"], told["left"]) == (True, 10, 10)
    assert told["seconds"] > 0
    assert not (home / "runs").exists()
    sweep(config)
    files = [p for p in (home / "runs").glob("*/*.safetensors") if "pca" not in p.parent.name]
    stored = sum(path.stat().st_size for path in files)
    assert told["bytes"] == pytest.approx(stored, rel=0.2)
    told = estimate(config).result
    assert (told["runs"], told["left"], told["seconds"], told["bytes"]) == (10, 0, 0.0, 0)


@pytest.mark.parametrize(
    ("recipe", "runs", "baselines"), [("front", 42, 20), ("front_all", 126, 6 + 18 + 18 + 18 + 6)]
)
def test_the_recipes_are_grids_of_the_size_they_tell(
    recipe: str, runs: int, baselines: int
) -> None:
    found = SWEEPS[recipe]().runs()
    for run in found:
        run.check(96)
    assert sum(run.objective in BASELINES for run in found) == baselines
    assert len(found) == runs + baselines
