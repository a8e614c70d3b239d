"""The commands that a card gives make the same store and the same run."""

import shlex
from pathlib import Path

import pytest

from tendril.__main__ import run_stage
from tendril.data.cli import Outcome
from tendril.data.store.reader import open_store
from tendril.harvest.command import harvest_command
from tendril.models.dictionaries.checkpoint import read_config
from tendril.train.command import train_command
from tendril.transfer import commands_of

from .harvest.test_run import MINE, config
from .helpers import sparse, tiny_language

__all__ = ["config"]  # imported as a fixture


def run(words: list[str], home: Path) -> dict[str, object]:
    outcome = run_stage([*words, "--home", str(home), "--device", "cpu"])
    assert isinstance(outcome, Outcome)
    return dict(outcome.result)


HARVESTS: dict[str, list[str]] = {
    "demo": ["demo", "--limit", "4", "--per-input", "3", "--seed", "2"],
    "orbits": ["orbits_demo", "--limit", "2", "--per-input", "2", "--rotations", "4"],
    "images": [
        *("images", "--subject", f"{MINE}:network", "--sites", "late", "--inputs", "photos"),
        *("--per-input", "2", "--positions", "uniform", "--dtype", "float32"),
    ],
    "language": [
        *("language", "--subject", "model", "--inputs", "texts", "--sites", "resid_post.1"),
        *("--context", "16", "--skip-first", "1"),
    ],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, photographs, a language model and texts, as the current one."""
    import numpy as np
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    tiny_language.save(tmp_path / "model")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(tiny_language.text(300))
    (tmp_path / Path(MINE).name).write_bytes(Path(MINE).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", HARVESTS)
def test_the_command_of_a_store_makes_the_store(case: str, here: Path) -> None:
    store = open_store(str(run(["harvest", *HARVESTS[case]], here / "one")["store"]))
    command = harvest_command(store)
    words = shlex.split(command)
    assert words[:2] == ["tendril", "harvest"]
    assert str(here) not in command and ".." not in command
    again = open_store(str(run(words[1:], here / "two")["store"]))
    assert again.arrays.about["digest"] == store.arrays.about["digest"]
    assert again.name == store.name


TRAININGS: dict[str, list[str]] = {
    "topk": ["topk", "--k", "3", "--latents", "12", "--seed", "4"],
    "relu": ["relu_l1", "--l1", "2.5", "--latents", "9"],
    "matryoshka": ["matryoshka", "--k", "2", "--latents", "16", "--lr", "0.002"],
    "sites": ["crosscoder", "--sites", "here", "there", "--k", "2", "--latents", "8"],
}


@pytest.mark.parametrize("case", TRAININGS)
def test_the_command_of_a_run_trains_the_run(case: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    rows = sparse.vectors(400, sparse.directions(12, 8))
    sparse.make_store(home, {"here": rows, "there": 2 * rows})
    steps = ["--steps", "4", "--batch-size", "64"]
    made = Path(str(run(["train", *TRAININGS[case], *steps], home)["run"]))
    command = train_command(read_config(made))
    words = shlex.split(command)
    assert words[:2] == ["tendril", "train"] and str(tmp_path) not in command
    again = run([*words[1:], "--dry-run"], home)
    assert Path(str(again.get("run", made))).name == made.name
    repeated = run(words[1:], home)
    assert Path(str(repeated["run"])) == made and repeated["reused"]


def test_the_commands_of_a_run_begin_with_its_harvest(here: Path) -> None:
    home = here / "home"
    run(["harvest", *HARVESTS["demo"]], home)
    train = ["topk", "--k", "2", "--latents", "8", "--steps", "3", "--batch-size", "4"]
    made = Path(str(run(["train", *train], home)["run"]))
    first, second = commands_of("run", made)
    assert first.startswith("tendril harvest demo ") and second.startswith("tendril train topk ")
    (store,) = (home / "store").iterdir()
    assert commands_of("store", store) == [first]
    store.rename(here / "elsewhere")
    assert commands_of("run", made) == [second]
