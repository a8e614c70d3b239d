"""One flipped bit in any file of a run, a stopped run, a sweep or a report: an error that says so,
or the same result.

As a program, tries FLIPS bits of each kind and counts:
python -m tests.train.test_damage FLIPS [SEED]."""

import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tendril.data.errors import TendrilError
from tendril.data.listing.describe import describe
from tendril.data.listing.entries import find_entry
from tendril.models.dictionaries.checkpoint import (
    load_dictionary,
    load_frequency,
    read_tensors,
)
from tendril.models.dictionaries.run import load_run
from tendril.study.compare.config import CompareConfig
from tendril.study.compare.study import CompareStudy
from tendril.study.core.index import write_index
from tendril.study.core.study import run_study
from tendril.train.config import TrainConfig
from tendril.train.loop import train
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep
from tendril.train.trainer import Trainer

from ..helpers import sparse

FLIPS = 30  # of each kind, in a test
FREE = ("seconds", "age_seconds", "reused", "digest", "xxh128")  # entries that may differ


@dataclass(frozen=True)
class Tried:
    """A folder that is damaged, and what is read of it afterwards."""

    folder: Path
    read: Callable[[], Any]


def plain(value: Any) -> Any:
    """A result that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key not in FREE}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def contents(folder: Path) -> dict[str, Any]:
    """What a run's folder holds; of its JSON files and states without seconds and digests."""
    held: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            held[path.name] = plain(json.loads(path.read_text()))
        elif path.name == "state.safetensors":
            tensors, numbers = read_tensors(path)
            held[path.name] = [plain(tensors), plain(numbers)]
        else:
            held[path.name] = path.read_bytes()
    return held


def runs_of(home: Path, steps: int = 6) -> TrainConfig:
    """A home with a store, and the config of a run of a tenth of a second."""
    sparse.make_store(home, {"here": sparse.vectors(800, sparse.directions(12, 8))})
    small = {"latents": 8, "batch_size": 64, "log_every": 1, "checkpoint_every": 2}
    return sparse.tiny(home, steps=steps, eval_every=2, **small)


def finished(home: Path) -> Tried:
    """A finished run, read in every way."""
    config = runs_of(home)
    run = train(config).run

    def read() -> Any:
        loaded = load_run(run)
        weights = dict(load_dictionary(run).state_dict())
        told = describe(find_entry(str(run)))
        return [
            *(plain(weights), plain(load_frequency(run)), loaded.config, plain(loaded.figures)),
            *(plain(vars(train(config))), plain(told["result"]), told["config"]),
        ]

    return Tried(run, read)


def stopped(home: Path) -> Tried:
    """A stopped run, which is continued."""
    config = runs_of(home)
    advance = Trainer.advance

    def stopping(trainer: Trainer) -> Any:
        if trainer.step == 5:
            raise KeyboardInterrupt
        return advance(trainer)

    Trainer.advance = stopping  # type: ignore[method-assign]
    try:
        train(config)
    except KeyboardInterrupt:
        pass
    finally:
        Trainer.advance = advance  # type: ignore[method-assign]
    (run,) = (home / "runs").iterdir()

    def read() -> Any:
        return [plain(vars(train(config))), contents(run)]

    return Tried(run, read)


def swept(home: Path) -> Tried:
    """A sweep: its folder is described and written again."""
    config = SweepConfig(sparsities=("k=2,3",), base=runs_of(home))
    made = sweep(config)

    def read() -> Any:
        told = describe(find_entry(str(made.sweep)))
        again = sweep(config)
        return [told["sweep"], plain(vars(again)), contents(again.sweep)]

    return Tried(made.sweep, read)


def reported(home: Path) -> Tried:
    """A report, which is found again, described and listed in the index."""
    base = runs_of(home)
    names = tuple(train(replace(base, seed=seed)).run.name for seed in (0, 1))
    config = CompareConfig(run=names, home=str(home), device="cpu")
    report = run_study(CompareStudy(), config).report.parent

    def read() -> Any:
        index = write_index(str(home)).read_text()
        found = run_study(CompareStudy(), config)
        told = describe(find_entry(str(report)))
        files = {path.name: path.read_bytes() for path in report.iterdir()}
        return [plain(vars(found)), plain(told["result"]), plain(told["about"]), files, index]

    return Tried(report, read)


KINDS = {"run": finished, "stopped run": stopped, "sweep": swept, "report": reported}


def flip(tried: Tried, kept: Path, count: int, seed: int, most: int = 4096) -> Counter[str]:
    """Flip bits of every file in turn, reading after each. Counts what came of them: `refused`,
    `same` or, named by file and bit, anything else."""
    shutil.copytree(tried.folder, kept)
    whole = tried.read()
    draw, found = random.Random(seed), Counter[str]()
    files = [path for path in sorted(kept.rglob("*")) if path.is_file()]
    for number in range(count):
        shutil.rmtree(tried.folder)
        shutil.copytree(kept, tried.folder)
        path = files[number % len(files)]
        content = bytearray(path.read_bytes())
        # half of the bits are drawn from the beginning, where headers are
        bits = 8 * (min(most // 8, len(content)) if draw.random() < 0.5 else len(content))
        bit = draw.randrange(bits)
        content[bit // 8] ^= 1 << bit % 8
        (tried.folder / path.relative_to(kept)).write_bytes(content)
        try:
            found["same" if tried.read() == whole else f"other: {path.name} {bit}"] += 1
        except TendrilError as error:
            sentence = str(error)
            found["refused" if sentence.endswith(".") else f"no sentence: {sentence}"] += 1
        except Exception as error:  # anything else would be a traceback
            found[f"{type(error).__name__}: {path.name} {bit}: {error}"] += 1
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.many_steps
def test_a_flipped_bit_is_refused_or_changes_nothing(kind: str, tmp_path: Path) -> None:
    found = flip(KINDS[kind](tmp_path / "home"), tmp_path / "kept", FLIPS, seed=1)
    assert found.keys() <= {"refused", "same"}, found
    assert found["refused"]


if __name__ == "__main__":
    flips, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for kind, make in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            print(kind, dict(flip(make(Path(folder) / "home"), Path(folder) / "kept", flips, seed)))
