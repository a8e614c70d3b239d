"""The command, as a person meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tendril.models.dictionaries.checkpoint import load_dictionary
from tendril.train.__main__ import main
from tendril.train.config import TrainConfig
from tendril.train.recipes import RECIPES

from ..helpers import sparse
from ..helpers.helped import check_help

ROOT = Path(__file__).parents[2]


def command(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TENDRIL_HOME": str(home or ""), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "tendril", "train", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    sparse.make_store(home, {"here": sparse.vectors(1600, sparse.directions())})
    return home


def test_a_recipe_with_fields_of_its_own_ends_in_json(home: Path) -> None:
    fields = ["--latents", "64", "--k", "3", "--steps", "20", "--batch-size", "64", "--lr", "0.002"]
    done = command("topk", *fields, "--device", "cpu", home=home)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    wanted = {"run", "fvu", "l0", "dead", "steps", "seconds", "reused", "store", "site"}
    assert wanted <= made.keys()
    assert made["steps"] == 20
    assert made["site"] == "here"
    assert not made["reused"]
    assert load_dictionary(made["run"]).latents == 64
    assert "vectors/s" in done.stderr
    again = command("topk", *fields, home=home)
    assert json.loads(again.stdout) == made | {"reused": True}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["topk", "--store", "nowhere"], "there is no store 'nowhere'"),
        (["topk", "--latents", "4", "--k", "5"], "--k is from 1 to the number of latents, 4"),
        (["relu_l1", "--site", "mixed9"], "has the sites here, and not 'mixed9'"),
        (["relu_l1", "--site", "hre"], "near it: here."),
        (["topkk"], "not 'topkk'; near it: topk"),
        (["topk", "--sites", "here", "here"], "--sites names each site once"),
        (["topk", "--device", "tpu"], "--device must be auto, cpu or cuda"),
    ],
)
def test_mistakes_are_a_sentence_and_status_2(
    home: Path,
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    monkeypatch.setenv("TENDRIL_HOME", str(home))
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert left.value.code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""


def test_a_mistake_ends_the_process_with_status_2(home: Path) -> None:
    told = command("topk", "--store", "nowhere", home=home)
    assert told.returncode == 2
    assert "there is no store 'nowhere'" in told.stderr
    assert "Traceback" not in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize("arguments", [["no_such_recipe"], ["topk", "--latens", "3"], []])
def test_words_that_are_not_known_are_status_2(arguments: list[str]) -> None:
    assert command(*arguments).returncode == 2


def test_help_names_recipes_and_fields() -> None:
    assert all(name in command("--help").stdout for name in RECIPES)
    shown = command("topk", "--help").stdout
    for field in (
        "--store",
        "--site",
        "--eval-every",
        "--target-l0",
        "--sources",
        "--latents",
        "--k",
        "--steps",
        "--batch-size",
        "--lr",
    ):
        assert f"{field} " in shown
    assert "EXPECT" not in shown


def test_help_takes_less_than_a_second_and_no_torch() -> None:
    check_help("train", shows="topk", never=("torch", "zarr", "numba"))


def test_recipes_are_complete_configs() -> None:
    for name, make in RECIPES.items():
        assert isinstance(make(), TrainConfig)
        named = {
            "demo": "topk",
            "language_demo": "topk",
            "crosscoder": "batch_topk",
            "crosscoder_l1": "relu_l1",
        }
        named |= {f"group_{name}": objective for name, objective in named.items()}
        named |= dict.fromkeys(("orbit_crosscoder", "orbits_demo", "control_demo"), "orbit")
        assert make().objective == named.get(name, name)
        make().check(96)
        assert make.__doc__
