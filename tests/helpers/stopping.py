"""One check for every kind of run: a stop changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tendril.train.config import TrainConfig
from tendril.train.loop import train
from tendril.train.trainer import Trainer

STEP = 33


def check_stop_changes_nothing(
    config: TrainConfig, home: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on the stores of `home`, stopped in `other` and gone on with there, ends bit for bit
    as one that was not."""
    (other / "store").symlink_to((home / "store").resolve())
    whole = train(config).run
    advance = Trainer.advance

    def stopping(trainer: Trainer) -> Any:
        if trainer.step == STEP:
            raise KeyboardInterrupt
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, home=str(other)))
    monkeypatch.undo()
    stopped = train(replace(config, home=str(other))).run
    for name in ("dictionary.safetensors", "metrics.csv", "evaluations.csv"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
