"""Metrics for TensorBoard, with a stand-in for its writer: the package is an extra."""

import csv
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tendril.data.errors import ConfigError
from tendril.train.loop import train

from ..helpers import sparse


class Writer:
    """Keeps what it is given."""

    made: list["Writer"] = []  # noqa: RUF012  shared on purpose

    def __init__(self, folder: str, purge_step: int | None) -> None:
        self.folder, self.purge_step, self.closed, self.flushed = folder, purge_step, 0, 0
        self.added: list[tuple[str, float, int]] = []
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.added.append((name, value, step))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def home(tmp_path: Path) -> Path:
    sparse.make_store(tmp_path, {"here": sparse.vectors(1600, sparse.directions())})
    return tmp_path


def test_the_csv_and_tensorboard_tell_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    made = train(sparse.tiny(home, tensorboard=True, eval_every=20))
    (writer,) = Writer.made
    assert (writer.folder, writer.purge_step) == (str(made.run / "tensorboard"), None)
    assert (writer.closed, writer.flushed > 0) == (1, True)
    for group, file in (("train", "metrics.csv"), ("held_out", "evaluations.csv")):
        lines = list(csv.DictReader((made.run / file).read_text().splitlines()))
        expected = [
            (f"{group}/{name}", float(value), int(line["step"]))
            for line in lines
            for name, value in line.items()
            if name != "step"
        ]
        assert expected
        assert [one for one in writer.added if one[0].startswith(group)] == expected
    again = train(sparse.tiny(home, eval_every=20))
    assert again == replace(made, reused=True), "the flag changes nothing of the dictionary"


def test_without_the_package_it_is_told_before_the_first_step(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="needs the package tensorboard, which is not installed"):
        train(sparse.tiny(home, tensorboard=True))
    assert not (home / "runs").exists()
