"""TensorBoard and Weights & Biases, with `--tensorboard` and `--wandb`; metrics.csv is always
written.

Both are extras, imported when a run asks for them. Neither is part of a run's identity, and an
error of one never stops a training.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, final

from tendril.data.cli import note, scalars
from tendril.data.errors import ConfigError
from tendril.data.store.atomic import write_whole
from tendril.models.dictionaries.checkpoint import CONFIG, read_json

from .config import TrainConfig, what_of

TENSORBOARD, WANDB = "tensorboard", "wandb"
MODULES = {TENSORBOARD: "torch.utils.tensorboard", WANDB: "wandb"}
PROJECT = "tendril"

Figures = Mapping[str, int | float]


class Logger(Protocol):
    """What is told the figures of a run as it trains."""

    def add(self, group: str, figures: Figures) -> None:
        """Take the figures of a step, as `group`/name; `step` itself is the axis."""
        ...

    def flush(self) -> None:
        """Write to the disk what was added."""
        ...

    def finish(self, figures: Figures | None) -> None:
        """Close: with the figures of the finished run, or with None for a run that stopped."""
        ...


def wanted(config: TrainConfig) -> list[str]:
    """The loggers that a config asks for."""
    return [name for name in MODULES if getattr(config, name)]


def check_loggers(config: TrainConfig) -> None:
    """Raise ConfigError if the package of a logger is missing or cannot be imported."""
    for name in wanted(config):
        _module(name)


def _module(name: str) -> Any:
    try:
        return import_module(MODULES[name])
    except Exception as error:  # a package that does not fit the others raises anything
        missing = isinstance(error, ImportError)
        what = "is not installed" if missing else f"cannot be imported ({error})"
        raise ConfigError(
            f"--{name} needs the package {name}, which {what}. Run `pip install {name}`, or leave "
            "the flag out: metrics.csv is always written."
        ) from error


@final
class Loggers:
    """All loggers of a run. The first error of one is a warning, and that logger is left out from
    then on; with a set of `lost` names that runs share, by all of them."""

    def __init__(
        self, config: TrainConfig, run: Path, step: int, lost: set[str] | None = None
    ) -> None:
        self._run, self._lost = run, set() if lost is None else lost
        self._loggers: dict[str, Logger] = {}
        kinds: dict[str, Callable[[], Logger]] = {
            TENSORBOARD: lambda: TensorBoard(run, step),
            WANDB: lambda: WeightsAndBiases(config, run),
        }
        for name in wanted(config):
            self._attempt(name, self._begin, name, kinds[name])

    def _begin(self, name: str, make: Callable[[], Logger]) -> None:
        self._loggers[name] = make()

    def add(self, group: str, figures: Figures) -> None:
        """Give the figures of a step to all loggers."""
        for name, logger in self._loggers.items():
            self._attempt(name, logger.add, group, figures)

    def flush(self) -> None:
        """Write to the disk what was added."""
        for name, logger in self._loggers.items():
            self._attempt(name, logger.flush)

    def finish(self, figures: Mapping[str, Any] | None = None) -> None:
        """Close all loggers: with the figures of the finished run, or without any for a run that
        stopped."""
        numbers = None if figures is None else numbers_of(figures)
        for name, logger in self._loggers.items():
            self._attempt(name, logger.finish, numbers)
        self._loggers = {}

    def _attempt(self, name: str, body: Callable[..., None], *given: Any) -> None:
        if name in self._lost:
            return
        try:
            body(*given)
        except Exception as error:
            self._lost.add(name)
            note(
                f"warning: --{name} has failed ({type(error).__name__}: {error}). Training goes on "
                f"without it; {self._run / 'metrics.csv'} has all figures."
            )


def numbers_of(figures: Mapping[str, Any]) -> dict[str, int | float]:
    """The entries that are numbers."""
    return {name: v for name, v in scalars(figures).items() if isinstance(v, int | float)}


@final
class TensorBoard:
    """Writes into <run>/tensorboard. In a run that continues, figures that an earlier process wrote
    after `step` are discarded."""

    def __init__(self, run: Path, step: int) -> None:
        make = _module(TENSORBOARD).SummaryWriter
        self._writer = make(str(run / TENSORBOARD), purge_step=step + 1 if step else None)

    def add(self, group: str, figures: Figures) -> None:
        """See Logger."""
        for name, value in figures.items():
            if name != "step":
                self._writer.add_scalar(f"{group}/{name}", value, int(figures["step"]))

    def flush(self) -> None:
        """See Logger."""
        self._writer.flush()

    def finish(self, figures: Figures | None) -> None:
        """See Logger."""
        if figures is not None:
            self.add("result", {"step": figures.get("steps", 0), **figures})
        self._writer.close()


@final
class WeightsAndBiases:
    """One W&B run a dictionary, under an id that <run>/wandb.txt keeps, so that a training that
    continues continues the same W&B run. W&B's files lie in <home>/wandb, or below $WANDB_DIR.

    What the flags leave open is left to W&B and its variables (WANDB_MODE, WANDB_PROJECT, ...).
    """

    def __init__(self, config: TrainConfig, run: Path) -> None:
        wandb = _module(WANDB)
        trained = read_json(run / CONFIG)
        self._pending: int | None = None
        self._run = wandb.init(
            project=config.wandb_project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=config.wandb_entity or None,
            group=config.wandb_group or None,
            mode=None if config.wandb_mode == "auto" else config.wandb_mode,
            id=wandb_id(run),
            name=run.name,
            notes=what_of(trained),
            config=trained,
            dir=None if os.environ.get("WANDB_DIR") else str(run.parents[1]),
            resume="allow",
            reinit="create_new",  # several at a time, in a sweep
            settings=wandb.Settings(
                console="off",  # leaves the streams of the process alone
                quiet=True,
                save_code=False,
            ),
        )

    def add(self, group: str, figures: Figures) -> None:
        """See Logger."""
        named = {f"{group}/{name}": value for name, value in figures.items() if name != "step"}
        self._pending = int(figures["step"])
        self._run.log(named, step=self._pending)

    def flush(self) -> None:
        """See Logger. W&B holds a step back until it is given a later one."""
        if self._pending is not None:
            self._run.log({}, step=self._pending, commit=True)
            self._pending = None

    def finish(self, figures: Figures | None) -> None:
        """See Logger."""
        if figures is not None:
            self._run.summary.update({f"result/{name}": v for name, v in figures.items()})
        self._run.finish(exit_code=1 if figures is None else 0)


def wandb_id(run: Path) -> str:
    """The id of a run at W&B: drawn once, then kept with the run, so that one that is trained again
    with --overwrite gets another."""
    path = run / f"{WANDB}.txt"
    if not path.is_file():
        write_whole(path, f"{run.name[-12:]}-{secrets.token_hex(4)}\n".encode())
    return path.read_text().strip()
