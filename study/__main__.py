"""`python -m study RECIPE --field value`: a dictionary, and its subject -> findings and a page."""

import inspect
from importlib import import_module
from typing import Any

import tyro

from data.command import run_command

from .recipes import RECIPES, STUDIES, Config


def main() -> None:
    """Parse, then study; nothing heavy is imported before the arguments are understood."""
    recipes = {name: (inspect.getdoc(make) or "", make()) for name, make in RECIPES.items()}
    config = tyro.extras.overridable_config_cli(
        recipes,
        prog="python -m study",
        description="Study a trained dictionary and its subject, and make a page of findings.",
    )
    run_command(lambda: _study(config))


def _study(config: Config) -> dict[str, Any]:
    module, function = STUDIES[type(config)].split(".")
    done = getattr(import_module(f"{__package__}.{module}"), function)(config)
    figures: dict[str, Any] = done if isinstance(done, dict) else done.summary()
    return figures


if __name__ == "__main__":
    main()
