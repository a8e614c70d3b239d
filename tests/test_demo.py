"""The stages of `make demo`: planted features come back, and a second time nothing is done."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tendril.harvest.recipes import causal_demo as harvest_causal
from tendril.harvest.recipes import demo as harvest_demo
from tendril.harvest.recipes import orbits_demo as harvest_orbits
from tendril.harvest.run import harvest
from tendril.study.run import study
from tendril.train.loop import train
from tendril.train.recipes import causal_demo as train_causal
from tendril.train.recipes import control_demo, orbits_demo
from tendril.train.recipes import demo as train_demo

from .conftest import untyped


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("home"))


def curves_way(home: str) -> list[dict[str, Any]]:
    """What the first three stages tell, on their default device; of fewer images and steps than
    the demo has, which takes a minute more."""
    made = dataclasses.asdict(harvest(dataclasses.replace(harvest_demo(), home=home, limit=200)))
    run = train(dataclasses.replace(train_demo(), home=home, steps=800)).summary()
    report = study("curves", home=home, run="demo", orientation_step=12.0)
    return [made, run, {**report.figures, "reused": report.reused}]


@pytest.fixture(scope="module")
def gone(home: str) -> list[dict[str, Any]]:
    """The first time."""
    with untyped():
        return curves_way(home)


def test_orientations_that_no_unit_shows_come_back_through_a_dictionary(
    gone: list[dict[str, Any]],
) -> None:
    made, run, found = gone
    assert made["rows"] == 8000
    assert run["fvu"] < 0.01
    assert (found["planted"], found["recovered_units"], found["recovered_latents"]) == (24, 10, 24)
    assert found["gap_units"] == pytest.approx(60, abs=1)
    assert found["gap_latents"] < 20
    assert found["worst_error_degrees"] <= 3
    # 24 latents near 24 angles could be chance; that each one is aligned with what was planted
    # there could not
    assert found["aligned_latents"] == 24
    assert found["aligned_cosine"] > 0.95


def test_the_second_time_nothing_is_done(home: str, gone: list[dict[str, Any]]) -> None:
    assert [stage["reused"] for stage in gone] == [False, False, False]
    before = {p: p.stat().st_mtime_ns for p in Path(home).rglob("*") if p.is_file()}
    assert len(before) > 20
    assert [stage["reused"] for stage in curves_way(home)] == [True, True, True]
    assert before == {p: p.stat().st_mtime_ns for p in Path(home).rglob("*") if p.is_file()}


def test_a_causal_model_shows_promoted_tokens_and_what_its_dictionary_recovers(
    tmp_path: Path,
) -> None:
    """The second part of `make demo-language`, of fewer contexts and steps."""
    pytest.importorskip("glassllm")
    home = str(tmp_path)
    with untyped():
        made = harvest(dataclasses.replace(harvest_causal(), home=home, limit=64, device="cpu"))
        few = {"home": home, "latents": 256, "steps": 120, "device": "cpu"}
        run = train(dataclasses.replace(train_causal(), **few))  # type: ignore[arg-type]
        splice = study("splice", home=home, run=("causal-demo",)).figures
        features = study("features", home=home, run="causal-demo")
    assert made.rows == 64 * 128 and run.fvu < 0.5
    assert splice["best_loss_recovered"] > 0.6
    assert splice["clean"]["cross_entropy"] < 4 < splice["zero"]["cross_entropy"]
    assert features.figures["logit_weights"]
    with (features.report.parent / "latents.csv").open() as file:
        latents = list(csv.DictReader(file))
    assert len(latents) == 256 and all(len(json.loads(one["promotes"])) == 10 for one in latents)


@pytest.mark.slow  # two minutes; `make demo` goes this way, too
def test_planted_families_come_back_with_what_fixes_them(home: str) -> None:
    harvest(dataclasses.replace(harvest_orbits(), home=home))
    for recipe in (orbits_demo, control_demo):
        train(dataclasses.replace(recipe(), home=home))
    runs = {"run": "orbits-demo", "controls": ("control-demo",)}
    figures = study("symmetry", home=home, **runs).figures
    ours, control = figures["planted"].values()
    assert ours["family_recall"] >= 0.6
    assert ours["match"] > 0.9 > control["match"]
    assert ours["class_accuracy"] >= 0.9
    assert ours["orientation_error"] < 3
    assert figures["classes"]["one reflection"] >= 2
    assert "one reflection" not in next(iter(figures["controls"].values()))
