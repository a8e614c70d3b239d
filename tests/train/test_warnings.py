"""What training warns of: in a sentence that says what to do, in result.json, and in studies."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.__main__ import run_stage
from tendril.models.dictionaries.checkpoint import read_figures, write_figures
from tendril.study.core.stores import training_warnings
from tendril.train.checks import (
    FEWEST_HELD_OUT,
    MOST_PASSES,
    warnings_of_held_out,
    warnings_of_mean,
    warnings_of_passes,
    warnings_of_result,
)
from tendril.train.loop import TrainResult, train
from tendril.train.outliers import Channels
from tendril.train.run import data_warnings
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep
from tendril.train.vectors import source_of, store_of

from ..helpers import sparse

ENOUGH = {"held_out": 0.5}  # of 100 inputs


@pytest.fixture
def home(tmp_path: Path) -> Path:
    sparse.make_store(tmp_path, {"here": sparse.vectors(1600, sparse.directions())})
    return tmp_path


def said(result: TrainResult, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The warnings of a run on stderr, which are those of its result.json and of a study of it."""
    lines = capsys.readouterr().err.splitlines()
    found = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
    written = json.loads((result.run / "result.json").read_text())
    assert written.get("warnings", []) == result.warnings == found
    remarks = [f"Training of {result.run.name} has warned: {text}" for text in found]
    assert training_warnings([result.run]) == remarks
    return found


def test_a_good_run_is_told_without_a_warning(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(sparse.tiny(home, **ENOUGH))
    assert said(result, capsys) == []
    assert "warnings" not in json.loads((result.run / "result.json").read_text())


def test_many_passes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = said(train(sparse.tiny(home, steps=400, **ENOUGH)), capsys)
    assert found.startswith("400 steps of 128 vectors are 64 passes over about 800 training")
    assert "Lower --steps or --batch-size, or harvest more" in found
    assert warnings_of_passes(MOST_PASSES, 10, 10.0) == []
    assert warnings_of_passes(MOST_PASSES + 1, 10, 10.0)


def test_a_small_held_out_part(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = said(train(sparse.tiny(home)), capsys)
    store = store_of(sparse.tiny(home))
    assert found.startswith(f"only 6 of 100 inputs of {store.name} are held out, so chance")
    assert "Raise --held-out (now 0.05), or harvest more inputs (--limit)" in found
    counts = {}
    for fraction in (0.05, 0.08, 0.1, 0.12, 0.2):
        text = "".join(warnings_of_held_out(store, fraction))
        counts[fraction] = int(text.split()[1]) if text else FEWEST_HELD_OUT
    held = {f: len(set(store.column("input")[rows(store, f)])) for f in counts}
    assert counts == {f: min(count, FEWEST_HELD_OUT) for f, count in held.items()}


def rows(store: Any, fraction: float) -> np.ndarray:
    from tendril.data import order

    return order.held_out(store.column("input"), fraction)


def test_an_fvu_above_that_of_the_mean(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(sparse.tiny(home, lr=3.0, steps=10, **ENOUGH))
    assert result.fvu > 1
    found = said(result, capsys)
    assert any(
        text.startswith(f"FVU {result.fvu:.3g} is above 1, so the mean vector reconstructs")
        and "Lower --lr or the sparsity penalty, train longer" in text
        for text in found
    )
    assert warnings_of_result(1.0, 0.0) == []
    assert warnings_of_result(float("nan"), 0.0)
    (without,) = warnings_of_result(0.4, 0.0, 1.2)
    assert without.startswith("FVU is 0.4 with norm outliers and 1.2 without them")


def test_dead_latents(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(sparse.tiny(home, latents=4096, k=1, steps=30, **ENOUGH))
    assert result.dead > 0.5
    (found,) = [text for text in said(result, capsys) if "dead" in text]
    assert found.startswith(f"{result.dead:.0%} of the latents are dead. Use fewer latents")
    assert warnings_of_result(0.1, 0.5) == []


def test_a_mean_that_carries_most_of_the_norm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """||mean||^2 is twice the variance: below what is centred."""
    rows = np.random.default_rng(0).standard_normal((1600, 32)).astype(np.float32) + 2**0.5
    sparse.make_store(tmp_path, {"here": rows})

    def of_mean(**fields: Any) -> list[str]:
        found = said(train(sparse.tiny(tmp_path, **ENOUGH, **fields)), capsys)
        return [text for text in found if "mean carries" in text]

    (found,) = of_mean(bias="zero")
    assert "b_dec starts at zero" in found
    assert found.startswith("the mean carries 67% of the squared norm of here in ")
    assert "(||mean|| / ||std|| is 1.4" in found
    assert "Pass --bias mean, or initialise dead latents again (--resample-every)" in found
    assert "b_dec is zero. Pass --bias mean" in of_mean(bias="none")[0]
    assert of_mean() == [], "b_dec starts at the median"
    (tied,) = of_mean(objective="tied")
    assert "Choose a recipe with --bias" in tied
    mean_C, variance_C = np.ones(4), np.ones(4)
    assert Channels(2 * mean_C, variance_C).severity == 2
    assert Channels(mean_C, 0 * variance_C).severity == 0
    assert warnings_of_mean(Channels(2 * mean_C, variance_C), "x", "zero") == [], "centred"


def test_few_channels_and_norm_outliers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More of these: test_outliers.py and test_means.py."""
    rows = sparse.vectors(1600, sparse.directions(64, 128))
    rows[:, 5] *= 100
    sparse.make_store(tmp_path, {"here": rows}, "channels")
    result = train(sparse.tiny(tmp_path, store="channels", steps=2, **ENOUGH))
    assert any("(number 5) hold 99% of the variance" in text for text in said(result, capsys))
    rows = sparse.vectors(1600, sparse.directions())
    rows[::59] *= 107
    sparse.make_store(tmp_path, {"here": rows}, "outliers")
    config = sparse.tiny(tmp_path, store="outliers", objective="relu_l1", l1=0.3, **ENOUGH)
    found = said(train(config), capsys)
    assert any("are norm outliers" in text and "Pass --norm-outliers" in text for text in found)
    source = source_of(config, store_of(config))
    assert data_warnings(config, source) == [text for text in found if "FVU is" not in text]


def test_a_sweep_warns_once_of_its_data(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = sparse.tiny(home, latents=4096, steps=30)
    made = sweep(SweepConfig(base=base, sparsities=("k=1,2",), seeds=(0, 1)))
    err = capsys.readouterr().err
    assert err.count("of 100 inputs") == 1
    assert "warning: 4 of 4 runs are mostly dead or have an FVU above 1" in err
    assert "`tendril data info RUN` says what to do" in err
    assert not made.failed
    for run in (home / "runs").glob("topk-*"):
        (held_out, dead) = read_figures(run)["warnings"]
        assert "held out" in held_out and "dead" in dead


def test_info_shows_warnings_in_full(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(sparse.tiny(home))
    run_stage(["data", "info", result.run.name, "--home", str(home)])
    (warning,) = result.warnings
    assert f"warnings of training\n  {warning}\n" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_has_no_warnings(home: Path) -> None:
    result = train(sparse.tiny(home))
    figures = read_figures(result.run)
    del figures["warnings"]
    write_figures(result.run, figures, ("config.json", "dictionary.safetensors"))
    assert training_warnings([result.run, home]) == []
    assert train(sparse.tiny(home)).warnings == []


def test_of_many_warnings_a_page_shows_one(tmp_path: Path) -> None:
    runs = [tmp_path / f"run-{number}" for number in range(7)]
    for run in runs:
        run.mkdir()
        (run / "result.json").write_text('{"warnings": ["It is so."]}')
    assert len(training_warnings(runs[:6])) == 6
    (told,) = training_warnings(runs)
    assert "7 runs has warned, e.g. that of run-0: It is so." in told
