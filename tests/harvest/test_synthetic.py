"""Stores of rows that no network made: rows equal the sum of what their truth says."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tendril.data.errors import ConfigError, StoreDamagedError
from tendril.data.store.reader import open_store
from tendril.data.store.truth import open_truth
from tendril.data.store.verify import verify_store
from tendril.harvest.config import SyntheticConfig, VerifyConfig
from tendril.harvest.run import harvest
from tendril.harvest.synthetic_rows import largest_cosine, parents, probabilities
from tendril.harvest.verify import verify_deep
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from ..data.test_store import ROOT, contents
from ..helpers import arithmetic

SMALL: dict[str, Any] = {"rows": 2048, "width": 12, "features": 20, "per_input": 16, "active": 2.0}
KINDS: dict[str, dict[str, Any]] = {
    "features": {},
    "trees": {
        **{"roots": 2, "children": 3, "depth": 2, "exclusive": True, "features": 40},
        **{"correlation_rank": 3, "correlation": 0.4, "orthogonalise": 5, "weakest": 0.5},
    },
    "sphere": {"kind": "manifolds", "dimension": 3},
    "shell": {"kind": "manifolds", "shape": "shell", "dimension": 3},
    "torus": {"kind": "manifolds", "shape": "torus", "dimension": 4},
    "interval": {"kind": "manifolds", "shape": "interval", "dimension": 1},
    "circle": {"kind": "manifolds", "shape": "circle", "dimension": 4},
    "orthogonal": {
        **{"kind": "manifolds", "dimension": 2, "subspaces": "orthogonal", "features": 6},
        **{"exponent": 1.5, "active": 1.0, "most": 1.0},
    },
    "exclusive": {
        **{"kind": "manifolds", "exclusive": True, "active": 1.0, "most": 1.0, "exponent": 1.5},
    },
}


def config(home: Path, **fields: Any) -> SyntheticConfig:
    """A small config."""
    return SyntheticConfig(home=str(home), device="cpu", **{**SMALL, **fields})


@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_the_sum_of_what_the_truth_says(kind: str, tmp_path: Path) -> None:
    made = harvest(config(tmp_path, **KINDS[kind]))
    store = open_store(made.store)
    truth, everything = open_truth(store), slice(0, store.rows)
    rows_RD = store.read("rows", everything)
    np.testing.assert_array_equal(truth.rows(everything), rows_RD)
    # the same with plain zarr, and another order of operations up to rounding
    group = zarr.open_group(made.store, mode="r")
    directions = np.asarray(group["truth/directions"])
    on = np.asarray(group["activations/truth.features"]).astype(int)
    c = np.asarray(group["activations/truth.coordinates"]).reshape(*on.shape, -1)
    by_hand = np.einsum("rkd,rkdw->rw", c, np.where((on >= 0)[..., None, None], directions[on], 0))
    np.testing.assert_allclose(by_hand, rows_RD, atol=1e-5)
    assert on.max() > 0 and (np.diff(np.where(on < 0, 10**6, on), axis=1)[on[:, 1:] >= 0] > 0).all()
    assert not verify_store(made.store).faults
    deep = verify_deep(VerifyConfig(made.store, device="cpu"), made.store)
    assert not deep.faults and deep.exact_rows == deep.rows * 3


def test_points_lie_on_their_manifolds(tmp_path: Path) -> None:
    def points(**fields: Any) -> np.ndarray:
        store = open_store(harvest(config(tmp_path, kind="manifolds", **fields)).store)
        truth, everything = open_truth(store), slice(0, store.rows)
        return np.asarray(truth.coordinates(everything)[truth.features(everything) >= 0])

    sphere = points(dimension=3)
    np.testing.assert_allclose(np.linalg.norm(sphere, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(sphere.T @ sphere / len(sphere), np.eye(3) / 3, atol=0.03)
    radii = np.linalg.norm(points(dimension=3, shape="shell"), axis=1)
    assert 0.5 <= radii.min() < 0.52 and 1.98 < radii.max() <= 2
    assert abs(np.quantile(radii, 0.25) - 0.875) < 0.03
    interval = points(dimension=1, shape="interval")
    assert interval.min() >= 0.5 and interval.max() <= 2
    torus = points(dimension=4, shape="torus")
    for circle in (torus[:, [0, 2]], torus[:, [1, 3]]):
        np.testing.assert_allclose(np.linalg.norm(circle, axis=1), 0.5**0.5, atol=1e-6)
    waves = points(dimension=4, shape="circle")
    turned = (waves[:, 0] + 1j * waves[:, 2]) ** 2 / 2
    np.testing.assert_allclose(waves[:, 1] + 1j * waves[:, 3], turned, atol=1e-6)


def test_features_are_as_frequent_as_planned(tmp_path: Path) -> None:
    given = config(tmp_path, rows=40_000, features=30, exponent=1.0)
    store = open_store(harvest(given).store)
    on = open_truth(store).features(slice(0, store.rows))
    measured = np.bincount(on[on >= 0], minlength=30) / store.rows
    planned = probabilities(given)
    assert planned.sum() == pytest.approx(2.0) and planned.max() <= 0.5
    assert np.allclose(planned / planned[0], 1 / np.arange(1, 31)) or planned[0] == 0.5
    error = np.sqrt(planned * (1 - planned) / store.rows)
    assert (np.abs(measured - planned) < 5 * error).all()


def test_exactly_one_manifold_is_on(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"kind": "manifolds", "active": 1.0, "most": 1.0, "exponent": 1.5}
    given = config(tmp_path, rows=40_000, exclusive=True, **fields)
    store = open_store(harvest(given).store)
    on = open_truth(store).features(slice(0, store.rows))
    assert on.shape == (store.rows, 1) and on.min() == 0
    planned = np.arange(1, 21) ** -1.5 / (np.arange(1, 21) ** -1.5).sum()
    measured = np.bincount(on[:, 0], minlength=20) / store.rows
    assert (np.abs(measured - planned) < 5 * np.sqrt(planned / store.rows)).all()
    # other stores of manifolds keep their names
    assert "exclusive" not in open_store(harvest(config(tmp_path, **fields)).store).spec["subject"]


def test_children_need_their_parents_and_exclude_their_siblings(tmp_path: Path) -> None:
    given = config(tmp_path, rows=4096, **KINDS["trees"])
    store = open_store(harvest(given).store)
    on = open_truth(store).features(slice(0, store.rows))
    active = np.zeros((store.rows, 40), bool)
    active[np.nonzero(on >= 0)[0], on[on >= 0]] = True
    parent = parents(given)
    assert parent.tolist()[:9] == [-1, -1, 0, 0, 0, 1, 1, 1, 2] and (parent >= 0).sum() == 2 * 12
    for child in np.flatnonzero(parent >= 0):
        assert not (active[:, child] & ~active[:, parent[child]]).any()
    for one in np.unique(parent[parent >= 0]):
        assert active[:, parent == one].sum(axis=1).max() == 1


def test_correlated_features_and_directions_that_were_pushed_apart(tmp_path: Path) -> None:
    def together(**fields: Any) -> float:
        given = config(tmp_path, rows=8192, exponent=0.0, active=6.0, **fields)
        store = open_store(harvest(given).store)
        on = open_truth(store).features(slice(0, store.rows))
        active = np.zeros((store.rows, 20))
        active[np.nonzero(on >= 0)[0], on[on >= 0]] = 1
        correlation = np.corrcoef(active.T)
        np.fill_diagonal(correlation, 0)
        return float(np.abs(correlation).mean())

    assert together(correlation_rank=2, correlation=0.6) > 5 * together()
    closest = []
    for steps in (0, 40):
        store = open_store(harvest(config(tmp_path, orthogonalise=steps)).store)
        closest.append(largest_cosine(open_truth(store).directions_FdD[:, 0]))
    assert closest[1] < 0.9 * closest[0]


def test_stops_and_several_ranks_leave_the_same_bytes(tmp_path: Path) -> None:
    words = ["harvest", "synthetic", "--rows", "60000", "--width", "12", "--features", "20"]
    words += ["--active", "2", "--batch-size", "4", "--device", "cpu"]
    running: dict[str, str] = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def begin(home: str, *more: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tendril", *words, "--home", str(tmp_path / home), *more]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=running, cwd=tmp_path, stdout=quiet, stderr=quiet)

    stopped = begin("stopped")
    written = "store/synthetic*/records/0*/zarr.json"
    while stopped.poll() is None and not list((tmp_path / "stopped").glob(written)):
        time.sleep(0.01)
    stopped.kill()
    stopped.wait()
    ranks = [begin("ranks", "--rank", str(rank), "--ranks", "2") for rank in range(2)]
    given = SyntheticConfig(
        rows=60_000, width=12, features=20, active=2.0, batch_size=4, device="cpu"
    )
    for home in ("whole", "stopped"):
        harvest(replace(given, home=str(tmp_path / home)))
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    whole = contents(tmp_path / "whole")
    assert whole == contents(tmp_path / "stopped") == contents(tmp_path / "ranks")


def test_dictionaries_train_on_it_and_find_the_directions(tmp_path: Path) -> None:
    made = harvest(config(tmp_path, rows=16_384, features=8, active=1.0, exponent=0.0))
    fields: dict[str, Any] = {"latents": 16, "k": 2, "steps": 300, "batch_size": 256, "lr": 1e-2}
    done = train(TrainConfig(store=made.store, home=str(tmp_path), device="cpu", **fields))
    rows = load_sae(done.run).W_dec.detach().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    directions = open_truth(open_store(made.store)).directions_FdD[:, 0]
    assert (directions @ rows.T).max(axis=1).min() > 0.9


def test_changed_directions_are_found(tmp_path: Path) -> None:
    made = harvest(config(tmp_path))
    file = Path(made.store) / "truth" / "directions" / "c" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StoreDamagedError, match="truth/directions"):
        open_truth(open_store(made.store))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 0}, "--rows must be at least 1; got 0"),
        ({"active": 30.0}, "--active must be from 0 to 10, --features times --most; got 30"),
        ({"active": 0.0}, "--active 0 needs --least"),
        ({"least": 0.7}, "--least must be from 0 to --most, 0.5; got 0.7"),
        ({"exponent": -1.0}, "--exponent must be from 0 to 10; got -1"),
        ({"correlation": 1.0}, "--correlation must be from 0 to below 1; got 1"),
        ({"roots": 21}, "--roots must be at most --features, 20; got 21"),
        ({"kind": "manifolds", "dimension": 13}, "--dimension must be at most --width, 12"),
        ({"kind": "manifolds", "shape": "torus", "dimension": 3}, "--dimension must be even"),
        ({"kind": "manifolds", "shape": "interval"}, "--dimension must be 1 for --shape interval"),
        ({"kind": "manifolds", "subspaces": "orthogonal"}, "--features must be at most 6"),
        ({"kind": "manifolds", "exclusive": True}, "--active must be 1 for manifolds of which"),
        ({"width": 2**20, "features": 2**20}, "must be at most 2,147,483,648, the values"),
    ],
)
def test_values_that_cannot_be_used(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        harvest(config(tmp_path, **fields))
    assert not list(tmp_path.iterdir())


def test_a_store_without_truth_is_refused(tmp_path: Path) -> None:
    arithmetic.harvest(tmp_path, inputs=4)
    store = open_store(next(tmp_path.glob("arithmetic-*")))
    with pytest.raises(ConfigError, match="holds no truth: its rows were made by a network"):
        open_truth(store)
