"""`python -m train RECIPE --field value`: a stored site -> a dictionary."""

import inspect
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import tyro

from data.command import run_command
from data.errors import ConfigError

from .config import TrainConfig, near
from .recipes import RECIPES
from .sweep_config import SWEEPS, SweepConfig


def main() -> None:
    """Parse, then train; nothing heavy is imported before the arguments are understood."""
    asked = sys.argv[1] if len(sys.argv) > 1 else "--help"
    known: dict[str, Callable[[], TrainConfig | SweepConfig]] = {**RECIPES, **SWEEPS}
    if not asked.startswith("-") and asked not in known:
        run_command(lambda: _unknown(asked))
    config = tyro.extras.overridable_config_cli(
        {name: (inspect.getdoc(make) or "", make()) for name, make in known.items()},
        prog="python -m train",
        description="Train a sparse dictionary on the activations of a store.",
    )
    run_command(lambda: _train(config))


def _unknown(recipe: str) -> NoReturn:
    known = [*RECIPES, *SWEEPS]
    raise ConfigError(
        f"the recipes are {', '.join(known)}, and not {recipe!r}{near(recipe, known)}"
        " (`python -m train --help` says what each is)."
    )


def _train(config: TrainConfig | SweepConfig) -> dict[str, Any]:
    if isinstance(config, SweepConfig):
        from .sweep import sweep

        return sweep(config).summary()
    from .loop import train

    return train(config).summary()


if __name__ == "__main__":
    main()
