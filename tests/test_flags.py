"""Every numeric flag of every command takes a bad number with a sentence: no traceback, no hang."""

import dataclasses
import importlib
import inspect
import os
import signal
import traceback
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tendril.__main__ import run_stage
from tendril.bench.config import BENCHES
from tendril.data.cli import LARGEST, RANGES, check_finite
from tendril.data.errors import ConfigError, StoreDamagedError, TendrilError
from tendril.data.store.folder import LocalFolder
from tendril.harvest.config import VerifyConfig
from tendril.harvest.recipes import RECIPES as HARVESTS
from tendril.study.registry import STUDIES
from tendril.train.recipes import RECIPES as TRAININGS
from tendril.train.sweep.recipes import SWEEPS

from .harvest.test_run import MINE
from .helpers import sparse, tiny_language

HUGE = str(10**20)
VALUES = ("0", "-1", HUGE, "nan", "inf")
SECONDS = 60  # a command that takes longer hangs


class LateError(BaseException):
    """Raised in a command that hangs."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, a model, a store and a run, all tiny."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "images").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    (folder / "a.txt").write_text("the cat sat on the mat . " * 40)
    tiny_language.save(folder / "model")
    sparse.make_store(folder, {"here": sparse.vectors(400, sparse.directions())}, "numbers")
    assert outcome(["train", "topk", *TRAIN, "--store", "numbers"], folder) == "done"
    assert outcome(["harvest", "images", *images(folder), "--name", "v"], folder) == "done"
    return folder


def images(home: Path) -> list[str]:
    words = ["--subject", f"{MINE}:network", "--sites", "late", "--inputs", str(home / "images")]
    return [*words, "--per-input", "2", "--device", "cpu"]


def text(home: Path) -> list[str]:
    words = ["--subject", str(home / "model"), "--inputs", str(home / "a.txt"), "--device", "cpu"]
    return [*words, "--context", "8", "--limit", "2", "--overwrite"]


TRAIN = ["--latents", "64", "--steps", "2", "--batch-size", "64", "--device", "cpu"]
AGAIN = [*TRAIN, "--overwrite", "--store", "numbers"]
COMMANDS: dict[str, tuple[Any, list[str]]] = {
    "harvest images": (HARVESTS["images"](), ["--overwrite"]),
    "harvest orbits": (HARVESTS["orbits"](), ["--overwrite", "--rotations", "2"]),
    "harvest language": (HARVESTS["language"](), []),
    "harvest verify v --deep": (VerifyConfig(), []),
    **{f"train {name}": (make(), AGAIN) for name, make in TRAININGS.items()},
    **{f"train {name}": (make().base, ["--dry-run", *AGAIN]) for name, make in SWEEPS.items()},
    **{f"study {name}": (entry.config(), ["--run", "topk"]) for name, entry in STUDIES.items()},
}
QUICK = ("harvest images", "harvest language", "train topk", "study curves", "study features")


def outcome(words: list[str], home: Path) -> str:
    """`done`, the sentence of an error, or a traceback."""

    def late(*_: object) -> None:
        raise LateError(words)

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        run_stage([*words, "--home", str(home)])
    except TendrilError as error:
        return f"sentence: {error}"
    except SystemExit as left:
        return "sentence" if left.code == 2 else f"status {left.code}"
    except (Exception, LateError):
        return f"traceback: {traceback.format_exc()}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return "done"


def numeric(config: Any) -> Iterator[str]:
    """The flags of a config that take numbers."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        waiting, kinds = [hints[field.name]], set()
        while waiting:
            kind = waiting.pop()
            kinds.add(kind if isinstance(kind, type) else None)
            if typing.get_origin(kind) is not typing.Literal:
                waiting += typing.get_args(kind)
        if kinds & {int, float}:
            yield f"--{field.name.replace('_', '-')}"


@pytest.mark.parametrize(
    "command",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS],
)
def test_any_number_is_a_sentence_or_a_success(
    command: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, more = COMMANDS[command]
    first = command.split()[:2]
    given = images(home) if first[1] in ("images", "orbits") else []
    given = text(home) if first[1] == "language" else given
    bad = []
    for flag in numeric(config):
        words = [*command.split(), *given, *more]
        while flag in words:
            at = words.index(flag)
            del words[at : at + 2]
        for value in VALUES:
            found = outcome([*words, flag, value], home)
            if found.startswith(("traceback", "status")):
                bad.append((flag, value, found[-600:]))
            if value in ("nan", "inf") and found == "done":
                bad.append((flag, value, found))
    capsys.readouterr()
    assert not bad, bad


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("value", ["nan", "inf", HUGE])
def test_numbers_of_benchmarks(bench: str, value: str, home: Path) -> None:
    for flag in numeric(BENCHES[bench]()):
        found = outcome(["bench", bench, flag, value], home)
        assert found.startswith("sentence"), (flag, found)


def test_ranges_hold_in_every_config() -> None:
    for name, (least, most) in RANGES.items():
        made = dataclasses.make_dataclass("Made", [(name, object)], frozen=True)
        for number in (least, most, (least, most)):
            check_finite(made(number))
        for number in (least - 1, most + 1, (least, most + 1)):
            with pytest.raises(ConfigError, match=f"--{name} must be a whole number from"):
                check_finite(made(number))
    made = dataclasses.make_dataclass("Made", [("other_number", int)], frozen=True)
    check_finite(made(LARGEST))
    with pytest.raises(ConfigError, match="--other-number must be a whole number from"):
        check_finite(made(LARGEST + 1))


EXITS = """
import sys

def network():
    made = real()
    made.module.register_forward_pre_hook(lambda *_: sys.exit({code}))
    return made

def at_once():
    sys.exit({code})
"""


@pytest.mark.parametrize("code", ["", "0", "'done'"])
@pytest.mark.parametrize("function", ["network", "at_once"])
def test_a_subject_that_ends_the_program_is_an_error(
    function: str, code: str, home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    source = Path(MINE).read_text().replace("def network(", "def real(")
    file.write_text(source + EXITS.format(code=code))
    words = ["harvest", "images", *images(home), "--subject", f"{file}:{function}"]
    found = outcome(words, tmp_path)
    assert found.startswith("sentence: "), found
    assert "exit" in found.lower()


@pytest.mark.parametrize(
    "flags", [["--skip-first", "8"], ["--skip-first", "9", "--per-input", "2"]]
)
def test_text_without_a_valid_row_makes_no_store(
    flags: list[str], home: Path, tmp_path: Path
) -> None:
    found = outcome(["harvest", "language", *text(home), *flags], tmp_path)
    assert "a context must keep at least one token; none of 2 contexts of 8" in found
    assert not (tmp_path / "store").exists()


def test_a_pipe_in_a_model_or_a_store_does_not_hang(home: Path, tmp_path: Path) -> None:
    tiny_language.save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model" / "model.safetensors")
    words = ["harvest", "language", *text(home), "--subject", str(tmp_path / "model")]
    assert "must be regular; model.safetensors is a pipe" in outcome(words, tmp_path)
    (tmp_path / "store" / "x").mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / "x" / "zarr.json")
    (tmp_path / "store" / "x" / "loop").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "store" / "x" / "zero").symlink_to("/dev/zero")
    (tmp_path / "store" / "x" / "file").write_text("1")
    (tmp_path / "store" / "x" / "link").symlink_to(tmp_path / "store" / "x" / "file")
    folder = LocalFolder(tmp_path / "store" / "x")
    assert folder.sizes() == {"file": 1, "link": 1}
    for read in (folder.read, lambda name: folder.read_into(name, 0, [np.zeros(1, np.uint8)])):
        with pytest.raises(StoreDamagedError, match="must be a regular file"):
            read("zarr.json")
    assert folder.read("link") == b"1"


@pytest.mark.parametrize(
    ("module", "listed"),
    [
        ("tendril.train.recipes", TRAININGS),
        ("tendril.train.sweep.recipes", SWEEPS),
        ("tendril.harvest.recipes", HARVESTS),
    ],
)
def test_every_recipe_is_listed(module: str, listed: Mapping[str, object]) -> None:
    """A recipe that is written and not listed cannot be called, and nothing says so."""
    made = inspect.getmembers(importlib.import_module(module), inspect.isfunction)
    public = {name for name, one in made if one.__module__ == module and name[0] != "_"}
    assert public == set(listed)
