"""`tendril study RECIPE --field value`: a dictionary, and its subject -> findings and a page."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import tyro

from tendril.data.cli import run_command

from .recipes import RECIPES, STUDIES, Config


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, then study; nothing heavy is imported before the arguments are understood."""
    recipes = {name: (inspect.getdoc(make) or "", make()) for name, make in RECIPES.items()}
    config = tyro.extras.overridable_config_cli(
        recipes,
        args=arguments,
        prog="tendril study",
        description="Study a trained dictionary and its subject, and make a page of findings.",
    )
    return _study(config)


def _study(config: Config) -> dict[str, Any]:
    module, _, function = STUDIES[type(config)].partition(":")
    done = getattr(import_module(f"{__package__}.{module}"), function)(config)
    figures: dict[str, Any] = done if isinstance(done, dict) else done.summary()
    return figures


if __name__ == "__main__":
    run_command(main)
