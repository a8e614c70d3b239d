"""`python -m train RECIPE --field value`: a stored site -> a dictionary."""

import inspect
import sys
from typing import Any, NoReturn

import tyro

from data.command import run_command
from data.errors import ConfigError

from .config import TrainConfig, near
from .recipes import RECIPES


def main() -> None:
    """Parse, then train; nothing heavy is imported before the arguments are understood."""
    asked = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if not asked.startswith("-") and asked not in RECIPES:
        run_command(lambda: _unknown(asked))
    config = tyro.extras.overridable_config_cli(
        {name: (inspect.getdoc(make) or "", make()) for name, make in RECIPES.items()},
        prog="python -m train",
        description="Train a sparse dictionary on the activations of a store.",
    )
    run_command(lambda: _train(config))


def _unknown(recipe: str) -> NoReturn:
    raise ConfigError(
        f"the recipes are {', '.join(RECIPES)}, and not {recipe!r}{near(recipe, RECIPES)}"
        " (`python -m train --help` says what each is)."
    )


def _train(config: TrainConfig) -> dict[str, Any]:
    from .loop import train

    return train(config).summary()


if __name__ == "__main__":
    main()
