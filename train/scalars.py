"""Metrics for TensorBoard, with `--tensorboard`; metrics.csv is always written."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, final

from tendril.data.errors import ConfigError

FOLDER = "tensorboard"


def summary_writer() -> Any:
    """The SummaryWriter of torch. Raises ConfigError if the package tensorboard is missing."""
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs the package tensorboard, which is not installed. Run `pip install "
            "-c constraints.txt tensorboard`, or leave the flag out: metrics.csv is always written."
        ) from error


@final
class Scalars:
    """Writes figures into <run>/tensorboard. In a run that continues, figures that an earlier
    process wrote after `step` are discarded."""

    def __init__(self, run: Path, step: int) -> None:
        self._writer = summary_writer()(str(run / FOLDER), purge_step=step + 1 if step else None)

    def add(self, group: str, figures: Mapping[str, int | float]) -> None:
        """Add the figures of a step, as `group`/name; `step` itself is the axis."""
        for name, value in figures.items():
            if name != "step":
                self._writer.add_scalar(f"{group}/{name}", value, int(figures["step"]))

    def flush(self) -> None:
        """Write to the disk what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
