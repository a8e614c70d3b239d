"""`tendril train RECIPE --field value`: a stored site -> a dictionary, or a sweep of them; and
what can be done with runs that are there: `tendril train compare RUN RUN ...`."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tyro

from tendril.data.cli import run_command
from tendril.data.errors import ConfigError

from .commands import COMMANDS, Command, run_one
from .config import TrainConfig, near
from .recipes import RECIPES
from .sweep.config import SweepConfig
from .sweep.recipes import SWEEPS

Asked = TrainConfig | SweepConfig | Command
KNOWN: dict[str, Callable[[], Asked]] = {**RECIPES, **SWEEPS, **COMMANDS}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any] | None:
    """Parse, then train; nothing heavy is imported before the arguments are understood."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and not words[0].startswith("-") and words[0] not in KNOWN:
        _unknown(words[0])
    config = tyro.extras.overridable_config_cli(
        {name: (inspect.getdoc(make) or "", make()) for name, make in KNOWN.items()},
        args=words or ["--help"],
        prog="tendril train",
        description="Train a sparse dictionary on the activations of a store.",
    )
    return _do(config)


def _unknown(asked: str) -> NoReturn:
    raise ConfigError(
        f"the recipes are {', '.join([*RECIPES, *SWEEPS])}, the commands {', '.join(COMMANDS)}, "
        f"and not {asked!r}{near(asked, KNOWN)} (`tendril train --help` says what each is)."
    )


def _do(config: Asked) -> dict[str, Any] | None:
    if isinstance(config, SweepConfig):
        from .distributed import refuse_launch
        from .sweep.estimate import estimate
        from .sweep.sweep import sweep

        refuse_launch("a sweep trains its dictionaries")
        if config.dry_run:
            return estimate(config)
        return sweep(config).summary()
    if not isinstance(config, TrainConfig):
        return run_one(config)
    from .distributed import is_first
    from .loop import train

    made = train(config).summary()
    return made if is_first() else None  # of the processes of torchrun one tells


if __name__ == "__main__":
    run_command(main)
