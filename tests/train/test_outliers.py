"""Norm outliers: a run takes every figure of the store from the rows that it trains on."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.train.loop import run_folder, train
from tendril.train.metrics import evaluate
from tendril.train.outliers import has_outliers, variance_of_outliers
from tendril.train.run import training_vectors
from tendril.train.vectors import source_of, store_of

from ..helpers import orbits, sparse

ROWS, EVERY, TIMES = 12_800, 59, 107.0  # 1.7 % of the rows


def ordinary(sites: int = 1) -> dict[str, np.ndarray]:
    wide = sparse.directions(64, 32 * sites)
    rows = sparse.vectors(ROWS, wide)
    return {f"s{i}": rows[:, 32 * i : 32 * (i + 1)].copy() for i in range(sites)}


def with_outliers(rows: np.ndarray, first: int = 0) -> np.ndarray:
    rows = rows.copy()
    rows[first::EVERY] *= TIMES
    return rows


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("clean")
    sparse.make_store(home, ordinary())
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows, 1.7 % of them with 107 times their norm."""
    home = tmp_path_factory.mktemp("outliers")
    sparse.make_store(home, {site: with_outliers(rows) for site, rows in ordinary().items()})
    return home


LONG = {"lr": 3e-3, "steps": 500, "batch_size": 256, "log_every": 250, "checkpoint_every": 500}
OBJECTIVES = [
    {"objective": "topk", "k": 8},
    {"objective": "batch_topk", "k": 8, "steps": 1000},
    {"objective": "matryoshka", "k": 8},
    {"objective": "relu_l1", "l1": 0.3},
    {"objective": "tied", "l1": 0.3},
    {"objective": "gated", "l1": 2.0, "steps": 1500, "lr": 1e-3},
    {"objective": "jumprelu", "l0": 0.01},
    {"objective": "pca", "k": 8},
]


@pytest.mark.parametrize("fields", OBJECTIVES, ids=lambda fields: str(fields["objective"]))
@pytest.mark.many_steps
def test_fvu_is_that_of_the_data_without_norm_outliers(
    clean: Path, home: Path, fields: dict[str, object]
) -> None:
    expected = train(sparse.tiny(clean, **LONG | fields)).fvu
    result = train(sparse.tiny(home, norm_outliers="drop", **LONG | fields))
    assert result.fvu == pytest.approx(expected, rel=0.1)
    assert result.fvu_without_outliers is None


@pytest.mark.parametrize("sites", [1, 2])
@pytest.mark.parametrize("rule", ["drop", "cap"])
def test_the_scale_is_that_of_the_rows_that_batches_give(
    tmp_path: Path, rule: str, sites: int
) -> None:
    rows = {
        site: with_outliers(values, 7 * i)
        for i, (site, values) in enumerate(ordinary(sites).items())
    }
    sparse.make_store(tmp_path, rows)
    joint = {"sites": tuple(rows), "objective": "batch_topk"} if sites > 1 else {}
    config = sparse.tiny(tmp_path, norm_outliers=rule, **joint)
    source = source_of(config, store_of(config))
    options = {"part": "all", "epochs": 1, "norm_outliers": rule}
    batches = list(source.store.batches(tuple(rows), 512, **options))  # type: ignore[arg-type]
    for site, scale in source.scales().items():
        x_ND = torch.cat([batch[site] for batch in batches]).double()
        assert scale * scale * float(x_ND.square().sum(dim=1).mean()) == pytest.approx(32, rel=1e-6)
    assert training_vectors(config, source) == pytest.approx(0.95 * len(x_ND))


@pytest.mark.parametrize("orbits_as", ["joined", "each", "identity"])
def test_orbits_are_outliers_as_wholes(tmp_path: Path, orbits_as: str) -> None:
    group = Dihedral(4)
    rows = orbits.orbits(group, orbits.families(group, 8, 6), 1600, 2)
    rows[::EVERY] *= TIMES
    orbits.make_store(tmp_path, group, {"site": rows})
    config = sparse.tiny(tmp_path, norm_outliers="drop", objective="topk", orbits=orbits_as)
    source = source_of(config, store_of(config))
    kept = np.delete(rows, np.s_[::EVERY], axis=0).astype(np.float64)
    scale = source.scales()["site"]
    assert scale**2 * np.square(kept).sum(axis=(1, 2)).mean() == pytest.approx(rows[0].size)
    keep = dataclasses.replace(config, norm_outliers="keep")
    test = source_of(keep, store_of(keep)).outlier_test
    assert test is not None
    x_NGD = torch.from_numpy(rows)
    x_ND = {"joined": x_NGD.flatten(1), "each": x_NGD.flatten(0, 1), "identity": x_NGD[:, 0]}
    found = test(x_ND[orbits_as]).view(len(rows), -1).numpy()
    assert found[::EVERY].all()
    assert found.sum() == found[::EVERY].size


def test_nothing_changes_without_outliers_or_where_they_are_kept(clean: Path, home: Path) -> None:
    for where, rule in ((clean, "drop"), (clean, "cap"), (clean, "keep"), (home, "keep")):
        config = sparse.tiny(where, norm_outliers=rule)
        source = source_of(config, store_of(config))
        moments = source.store.moments("s0")
        size = float((moments.variance + moments.mean**2).sum())
        assert source.scale() == (32 / size) ** 0.5
        assert not source.alters
    names = {
        run_folder(config, source_of(config, store_of(config))).name
        for config in (sparse.tiny(home, norm_outliers=rule) for rule in ("keep", "drop", "cap"))
    }
    assert len(names) == 3


def test_kept_outliers_are_named_before_and_after_training(
    home: Path, clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(sparse.tiny(home, **LONG | {"objective": "relu_l1", "l1": 0.3}))
    said = capsys.readouterr().err
    assert result.fvu_without_outliers is not None
    assert result.fvu_without_outliers > 2 * result.fvu
    assert "217 of 12,800 rows of s0" in said
    assert re.search(r"hold at least 9\d% of the variance", said)
    assert f"{result.fvu_without_outliers:.3g} without them" in said
    assert said.count("--norm-outliers drop") == 2
    written = json.loads((result.run / "result.json").read_text())
    assert written["fvu_without_outliers"] == result.fvu_without_outliers
    train(sparse.tiny(home, norm_outliers="cap"))
    said = capsys.readouterr().err
    assert re.search(r"hold at least \d\d% of the variance even when capped", said)
    for where, rule in ((clean, "keep"), (home, "drop")):
        assert train(sparse.tiny(where, norm_outliers=rule)).fvu_without_outliers is None
        assert "--norm-outliers" not in capsys.readouterr().err


def test_the_variance_of_outliers_is_bounded_from_below(home: Path, clean: Path) -> None:
    store = store_of(sparse.tiny(home))
    rows = store.read("s0", slice(0, store.rows)).astype(np.float64)
    off = np.square(rows - rows.mean(axis=0)).sum(axis=1)
    count, fraction = variance_of_outliers(store, "s0", 10.0)
    assert count == len(rows[::EVERY])
    assert 0.95 * off[::EVERY].sum() / off.sum() < fraction <= off[::EVERY].sum() / off.sum()
    assert not has_outliers(store_of(sparse.tiny(clean)), ("s0",), 10.0)


@pytest.mark.parametrize("batch", [3, 200])
def test_the_second_fvu_is_that_of_the_other_vectors(batch: int) -> None:
    x_ND = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) + 10
    x_ND[::20] *= 100
    sae = initialised(
        SAE(6, 16, Sparsity("topk", 2), pre_bias=True),
        torch.Generator().manual_seed(1),
        bias_D=torch.full((6,), 10.0),
    )
    found = evaluate(sae, torch.split(x_ND, batch), 150, lambda x: x.norm(dim=1) > 1000)
    used = torch.arange(150) % 20 != 0
    alone = evaluate(sae, [x_ND[:150][used]], 150)
    assert found.fvu_without_outliers == pytest.approx(alone.fvu, rel=1e-6)
    assert found.fvu == evaluate(sae, torch.split(x_ND, batch), 150).fvu
    assert evaluate(sae, [x_ND], 150, lambda x: x.norm(dim=1) < 0).fvu_without_outliers is None


def test_few_channels_that_hold_most_of_the_variance_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sparse.vectors(1600, sparse.directions(64, 128))
    rows[:, 5] *= 100
    sparse.make_store(tmp_path, {"here": rows})
    train(sparse.tiny(tmp_path, steps=2))
    said = capsys.readouterr().err
    assert "1 of 128 channels of here" in said
    assert "(number 5) hold 99% of the variance" in said


def test_rows_that_are_mostly_zero_are_refused_by_name(tmp_path: Path) -> None:
    rows = sparse.vectors(1600, sparse.directions())
    rows[: len(rows) * 2 // 3] = 0
    sparse.make_store(tmp_path, {"here": rows})
    with pytest.raises(ConfigError, match=r"--norm-outliers drop must differ.*more than half"):
        train(sparse.tiny(tmp_path, norm_outliers="drop"))
