"""python -m harvest RECIPE [--field value ...]"""

import dataclasses
from collections.abc import Mapping

import tyro

from data.command import note, run_command

from .config import HarvestConfig
from .recipes import RECIPES


def main() -> Mapping[str, object]:
    """Parse, harvest, and tell what was made."""
    config = tyro.extras.overridable_config_cli(
        {name: (recipe.__doc__ or "", recipe()) for name, recipe in RECIPES.items()},
        prog="python -m harvest",
    )
    assert isinstance(config, HarvestConfig)
    from .run import (
        estimate,
        harvest,
        make_layout,
        make_plan,
    )  # after parsing: torch takes a second

    if config.dry_run:
        plan = make_plan(config)
        about = estimate(plan, make_layout(plan))
        note(about.pop("sentence"))
        return {"store": str(plan.path), "dry_run": True, **about}
    return dataclasses.asdict(harvest(config))


if __name__ == "__main__":
    run_command(main)
