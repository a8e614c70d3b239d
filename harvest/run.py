"""A config -> a complete store: plan it, say what it will cost, write it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tendril.data.cli import note
from tendril.data.store.folder import open_folder
from tendril.data.store.record import is_complete, read_about

from .config import StoreConfig
from .estimate import estimate
from .loop import write_store
from .plan import Plan, environment_of, make_plan


@dataclass(frozen=True)
class Harvest:
    """What a harvest made, or found made already."""

    store: str
    rows: int
    seconds: float
    rows_per_s: float
    reused: bool
    unreadable: int = 0


def harvest(config: StoreConfig) -> Harvest:
    """Harvest what a config asks for, or find it made already.

    A harvest that was stopped goes on where it was. Raises children of TendrilError for
    everything that the config, its paths or its files can cause.
    """
    began = time.perf_counter()
    plan = make_plan(config)
    folder = open_folder(plan.location)
    if not config.overwrite and is_complete(folder):
        about = read_about(folder)
        _say_what_differs(plan, about["layout"])
        rows = about["layout"]["inputs"] * about["layout"]["rows_per_input"]
        return Harvest(plan.location, rows, _since(began), 0.0, reused=True)
    layout = plan.layout()
    if plan.rank == 0:
        note(estimate(plan, layout)["sentence"])
    done = write_store(
        plan.location,
        plan.spec,
        layout,
        plan.producer(layout.inputs_per_slice),
        origin=plan.origin(),
        environment=environment_of(plan.device),
        overwrite=config.overwrite,
        progress=True,
        overlap=plan.device.type != "cpu",
        rank=plan.rank,
        ranks=plan.ranks,
        declared=config.ranks > 0 or plan.ranks > 1,
    )
    if done.invalid_inputs:
        note(
            f"{done.invalid_inputs} of {layout.inputs} inputs could not be read; their rows are "
            f"marked invalid, and {plan.location}/records says why."
        )
    return Harvest(
        store=plan.location,
        rows=layout.rows,
        seconds=_since(began),
        rows_per_s=round(done.rows / max(done.seconds, 1e-9), 1),
        reused=False,
        unreadable=done.invalid_inputs,
    )


def _say_what_differs(plan: Plan, layout: Mapping[str, Any]) -> None:
    stored = layout["compressor"]
    if stored != plan.settings.compressor:
        note(
            f"the store is there already, compressed with {stored} and not with "
            f"{plan.settings.compressor}; the rows are the same (--overwrite makes it anew)."
        )


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 2)
