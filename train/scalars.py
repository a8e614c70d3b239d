"""Metrics for TensorBoard beside metrics.csv, where `--tensorboard` asks for them."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, final

from tendril.data.errors import ConfigError

FOLDER = "tensorboard"


def summary_writer() -> Any:
    """torch's SummaryWriter. Raises ConfigError where the package it needs is not installed."""
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "--tensorboard wants the package tensorboard, which is not installed; `pip install "
            "-c constraints.txt tensorboard`, or leave the flag out: metrics.csv is always there."
        ) from error


@final
class Scalars:
    """Writes figures into <run>/tensorboard; what an earlier process wrote after `step`, where
    the run goes on, is void."""

    def __init__(self, run: Path, step: int) -> None:
        self._writer = summary_writer()(str(run / FOLDER), purge_step=step + 1 if step else None)

    def add(self, group: str, figures: Mapping[str, int | float]) -> None:
        """Figures of a step, as `group`/name; `step` itself is the axis."""
        for name, value in figures.items():
            if name != "step":
                self._writer.add_scalar(f"{group}/{name}", value, int(figures["step"]))

    def flush(self) -> None:
        """Make what was added last."""
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
