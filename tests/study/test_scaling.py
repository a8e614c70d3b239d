"""The study of scaling: the model, runs on known manifolds, and runs on a network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.data.errors import ConfigError
from tendril.harvest.config import SyntheticConfig
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import LATENTS
from tendril.study.run import study
from tendril.study.scaling.config import ScalingConfig
from tendril.study.scaling.runs import read_dictionary
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from .test_page import check

ONE: dict[str, Any] = {"features": 1, "active": 1.0, "most": 1.0, "width": 4}
MANY: dict[str, Any] = {
    **{"features": 6, "active": 1.0, "most": 1.0, "width": 12, "exponent": 1.5},
    "subspaces": "orthogonal",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on one circle, on six circles, and on another kind of rows."""
    folder = tmp_path_factory.mktemp("scaling")
    given = {"one": ONE, "many": MANY}
    for name, fields in given.items():
        config = SyntheticConfig(
            kind="manifolds", rows=4096, name=name, home=str(folder), device="cpu", **fields
        )
        store = harvest(config).store
        for latents in (4, 12):
            train(
                TrainConfig(
                    store=store,
                    home=str(folder),
                    device="cpu",
                    name=f"{name}-{latents}",
                    latents=latents,
                    k=1,
                    steps=60,
                    batch_size=256,
                    lr=1e-2,
                )
            )
    return folder


def test_the_model_page(tmp_path: Path) -> None:
    result = study("scaling", model=True, home=str(tmp_path), beta=(0.1, 1.0), largest=1e7)
    slow, fast = result.figures["model"]
    assert slow["regime"] == "manifolds" and fast["regime"] == "features"
    assert slow["features_exponent"] == pytest.approx(1.1 / 1.5, abs=0.02)
    assert fast["efficiency"] > 5 * slow["efficiency"]
    check(text := result.report.read_text())
    assert "common manifolds absorb latents" in text and "10⁶" in text
    assert (result.report.parent / "model.csv").is_file()
    assert "beta 0.1" in result.headline or "10,000,000 latents" in result.headline


def test_runs_on_known_manifolds(home: Path) -> None:
    runs = ("one-4", "one-12", "many-4", "many-12")
    result = study("scaling", run=runs, home=str(home))
    found = {one["run"].rpartition("-")[0]: one for one in result.figures["runs"]}
    assert found["one-12"]["manifolds"] == 1 and found["one-12"]["shape"] == "sphere 2"
    assert found["one-12"]["manifolds_found"] == 1 and found["one-12"]["fvu"] < 0.2
    assert 1 <= found["many-4"]["manifolds_found"] <= found["many-12"]["manifolds_found"] <= 6
    assert found["many-12"]["predicted measured L(n)"] >= 1
    check(text := result.report.read_text())
    assert "One manifold" in text and "Many manifolds" in text and "the model" in text


@pytest.mark.parametrize("name", ["curves", "features", "splice", "steer"])
def test_studies_of_a_network_are_refused_where_no_network_made_the_rows(
    home: Path, name: str
) -> None:
    run: Any = ("one-4",) if name == "splice" else "one-4"
    with pytest.raises(ConfigError, match="no network made the rows of one-"):
        study(name, run=run, home=str(home))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs --model, --run or both; got neither"),
        ({"model": True, "alpha": 0.0}, "--alpha must be above 0 and at most 10; got 0"),
        ({"model": True, "beta": (0.1, -1.0)}, "--beta must be one or more numbers above 0"),
        ({"model": True, "largest": 1e10}, "--largest must be from ten times --smallest"),
        ({"model": True, "features": 1e13}, "--features must be at most 1e12"),
        ({"model": True, "last_rank": 12}, "--last-rank must be at least 19"),
        ({"model": True, "alpha": float("nan")}, "alpha must be"),
    ],
)
def test_values_that_cannot_be_used(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study("scaling", home=str(tmp_path), **fields)


def test_a_run_on_directions_is_no_toy(tmp_path: Path) -> None:
    config = SyntheticConfig(rows=2048, width=8, features=12, active=2.0, home=str(tmp_path))
    store = harvest(config).store
    fields: dict[str, Any] = {"latents": 24, "k": 2, "steps": 20, "batch_size": 128}
    train(TrainConfig(store=store, home=str(tmp_path), device="cpu", **fields))
    (one,) = study("scaling", run=("latest",), home=str(tmp_path)).figures["runs"]
    assert one["manifolds"] == 12 and one["shape"] == "direction 1"
    assert 0 < one["manifolds_found"] <= 12 and np.isfinite(one["fvu"])


def test_what_is_unknown_is_not_shown_as_a_figure(home: Path, tmp_path: Path) -> None:
    """Frequencies of an imported dictionary, and a prediction where no power law holds."""
    config = SyntheticConfig(
        kind="manifolds", rows=2048, home=str(tmp_path), device="cpu", **{**MANY, "most": 0.2}
    )
    fields: dict[str, Any] = {"latents": 24, "k": 1, "steps": 20, "batch_size": 128}
    run = train(
        TrainConfig(store=harvest(config).store, home=str(tmp_path), device="cpu", **fields)
    ).run
    (one,) = study("scaling", run=("latest",), home=str(tmp_path)).figures["runs"]
    assert one["slope"] != "" and not any(name.startswith("predicted") for name in one)
    (run / LATENTS).unlink()
    dictionary = read_dictionary(ScalingConfig(run=("latest",), home=str(tmp_path)), run)
    assert dictionary.slope is None and dictionary.alive == 24
