"""python -m harvest RECIPE [--field value ...]"""

import dataclasses
from collections.abc import Mapping

import tyro

from data.command import note, run_command

from .config import HarvestConfig
from .recipes import RECIPES


def main() -> Mapping[str, object] | None:
    """Parse, harvest, and tell what was made; of several processes the first one tells."""
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
        process_of,
    )  # after parsing: torch takes a second

    if config.dry_run:
        plan = make_plan(config)
        if plan.rank > 0:
            return None
        about = estimate(plan, make_layout(plan))
        note(about.pop("sentence"))
        return {"store": plan.location, "dry_run": True, **about}
    done = harvest(config)
    return dataclasses.asdict(done) if process_of(config)[0] == 0 else None


if __name__ == "__main__":
    run_command(main)
