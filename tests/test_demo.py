"""The whole way, as `make demo` goes it: the planted detectors come back through store and
dictionary, and the second time nothing is done."""

import dataclasses
from pathlib import Path

import pytest

from harvest.recipes import demo as harvest_demo
from harvest.run import harvest
from study.curves import study_curves
from study.recipes import curves
from train.loop import train
from train.recipes import demo as train_demo


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("home"))


def whole_way(home: str) -> list[dict[str, object]]:
    """What the three stages tell, on their default device."""
    made = dataclasses.asdict(harvest(dataclasses.replace(harvest_demo(), home=home)))
    run = train(dataclasses.replace(train_demo(), home=home)).summary()
    config = dataclasses.replace(curves(), home=home, run="demo", orientation_step=7.5)
    return [made, run, study_curves(config).summary()]


def test_the_planted_orientations_come_back_through_a_trained_dictionary(home: str) -> None:
    made, run, study = whole_way(home)
    assert made["rows"] == 32000
    assert float(str(run["fvu"])) < 0.01
    assert study["planted"] == study["recovered_units"] == study["recovered_latents"] == 16
    assert float(str(study["worst_error_degrees"])) <= 6
    # sixteen latents near sixteen angles could be chance; that each one is aligned with the
    # unit that was planted there could not
    assert study["aligned_latents"] == 16
    assert float(str(study["recovered_by_chance"])) < 12


def test_the_second_time_nothing_is_done(home: str) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(home).rglob("*") if p.is_file()}
    assert len(before) > 20, "the first test makes what this one finds"
    assert [stage["reused"] for stage in whole_way(home)] == [True, True, True]
    assert before == {p: p.stat().st_mtime_ns for p in Path(home).rglob("*") if p.is_file()}
