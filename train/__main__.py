"""`python -m train RECIPE --field value`: a stored site -> a dictionary, or a sweep of them; and
what can be done with runs that are there: `python -m train compare RUN RUN ...`."""

import inspect
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import tyro

from data.command import run_command
from data.errors import ConfigError

from .commands import COMMANDS, Command, run_one
from .config import TrainConfig, near
from .recipes import RECIPES
from .sweep_config import SweepConfig
from .sweep_recipes import SWEEPS

Asked = TrainConfig | SweepConfig | Command
KNOWN: dict[str, Callable[[], Asked]] = {**RECIPES, **SWEEPS, **COMMANDS}


def main() -> None:
    """Parse, then train; nothing heavy is imported before the arguments are understood."""
    asked = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if not asked.startswith("-") and asked not in KNOWN:
        run_command(lambda: _unknown(asked))
    config = tyro.extras.overridable_config_cli(
        {name: (inspect.getdoc(make) or "", make()) for name, make in KNOWN.items()},
        prog="python -m train",
        description="Train a sparse dictionary on the activations of a store.",
    )
    run_command(lambda: _do(config))


def _unknown(asked: str) -> NoReturn:
    raise ConfigError(
        f"the recipes are {', '.join([*RECIPES, *SWEEPS])}, the commands {', '.join(COMMANDS)}, "
        f"and not {asked!r}{near(asked, KNOWN)} (`python -m train --help` says what each is)."
    )


def _do(config: Asked) -> dict[str, Any] | None:
    if isinstance(config, SweepConfig):
        from .distributed import refuse_launch
        from .sweep import sweep
        from .sweep_plan import estimate

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
    main()
