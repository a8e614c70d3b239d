"""`python -m train RECIPE --field value`: a stored site -> a dictionary."""

import inspect
from typing import Any

import tyro

from data.command import run_command

from .config import TrainConfig
from .recipes import RECIPES


def main() -> None:
    """Parse, then train; nothing heavy is imported before the arguments are understood."""
    config = tyro.extras.overridable_config_cli(
        {name: (inspect.getdoc(make) or "", make()) for name, make in RECIPES.items()},
        prog="python -m train",
        description="Train a sparse dictionary on the activations of a store.",
    )
    run_command(lambda: _train(config))


def _train(config: TrainConfig) -> dict[str, Any]:
    from .loop import train

    return train(config).summary()


if __name__ == "__main__":
    main()
