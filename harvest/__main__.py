"""tendril harvest RECIPE [--field value ...]"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import tyro

from tendril.data.cli import as_json, note, run_command

from .config import StoreConfig, VerifyConfig
from .recipes import RECIPES

VERIFY = """Check a store: every chunk and file or, with --deep, a sample made once more.

Rows of a random sample are computed again from the subject and the inputs that the store
names, and compared. Leaves with status 2 where anything differs, after listing it."""


def main(arguments: Sequence[str] | None = None) -> Mapping[str, object] | None:
    """Parse, harvest, and tell what was made; of several processes the first one tells."""
    recipes = {name: (recipe.__doc__ or "", recipe()) for name, recipe in RECIPES.items()}
    config: object = tyro.extras.overridable_config_cli(
        {**recipes, "verify": (VERIFY, VerifyConfig())}, prog="tendril harvest", args=arguments
    )
    if isinstance(config, VerifyConfig):
        return _verify(config)
    assert isinstance(config, StoreConfig)
    from .estimate import estimate  # after parsing: torch takes a second
    from .plan import make_plan, process_of
    from .run import harvest

    if config.dry_run:
        plan = make_plan(config)
        if plan.rank > 0:
            return None
        about = estimate(plan, plan.layout())
        note(about.pop("sentence"))
        return {"store": plan.location, "dry_run": True, **about}
    done = harvest(config)
    return dataclasses.asdict(done) if process_of(config)[0] == 0 else None


def _verify(config: VerifyConfig) -> Mapping[str, object]:
    from tendril.data.home import find_store
    from tendril.data.store import tables as table

    location = find_store(config.store, config.home)
    if not config.deep:
        from tendril.data.store.verify import verify_store

        about = dataclasses.asdict(verify_store(location, progress=sys.stderr.isatty()))
        text = table.verified(about)
    else:
        from .verify import verify_deep

        about = verify_deep(config, location).summary()
        text = table.recomputed(about)
    if not config.json:
        print(text)
    if about["faults"]:
        print(as_json(about), flush=True)
        table.refuse(about)
    return about


if __name__ == "__main__":
    run_command(main)
