"""What a sweep would take, told by a few steps of each of its settings: `--dry-run`."""

import time
from dataclasses import replace
from typing import Any

import torch

from tendril.data.cli import note
from tendril.data.device import cpu_threads, keep_freed_memory, resolve_device
from tendril.data.home import find_store
from tendril.data.store.reader import open_store
from tendril.models.dictionaries.checkpoint import RESULT

from ..config import BASELINES, TrainConfig
from ..loop import run_folder
from ..objectives.registry import make_objective
from ..trainer import Trainer, check_room, products
from ..vectors import Source, source_of
from .config import SweepConfig
from .sweep import step_threads

TRIED = 2  # steps that are timed, after one to warm up


def estimate(config: SweepConfig) -> dict[str, Any]:
    """Runs that are left, and the bytes on disk, bytes of memory and seconds that they want.

    Each setting (a run but for its seed) takes three steps on the store's own vectors. What is
    small beside training is not counted: baselines, evaluation, reading. Raises what `sweep`
    raises before its first step.
    """
    store = open_store(find_store(config.base.store, config.base.home))
    source, device = source_of(config.base, store), resolve_device(config.base.device)
    keep_freed_memory()
    runs = config.runs()
    for run in runs:
        run.check(source.width)
        check_room(run, source.width, device)
    left = [run for run in runs if not (run_folder(run, source) / RESULT).exists()]
    trained = [run for run in left if run.objective not in BASELINES]
    settings: dict[str, list[TrainConfig]] = {}
    for run in trained:
        settings.setdefault(repr(replace(run, seed=0)), []).append(run)
    seconds, stored = 0.0, 0
    threads = step_threads(trained, source.width)
    with cpu_threads(threads), products(config.base.precision, device):
        for alike in settings.values():
            step, floats = _tried(alike[0], source, device)
            seconds += sum(run.steps * step for run in alike)
            stored += 4 * 4 * floats * len(alike)  # the dictionary, and what goes on from it
    note(
        f"{len(runs)} runs, {len(left)} of them to be made: about {seconds / 60:,.0f} minutes on "
        f"{device} ({threads} threads), {stored / 1e6:,.0f} MB of disk and as much memory."
    )
    told = {"runs": len(runs), "left": len(left), "bytes": stored, "seconds": round(seconds, 1)}
    return {"dry_run": True, **told}


def _tried(config: TrainConfig, source: Source, device: torch.device) -> tuple[float, int]:
    """Seconds a step, and the number of weights."""
    stream = source.training(config, device)
    try:
        objective = make_objective(config, source.width, source.joint)
        trainer = Trainer(config, objective, stream, source.scale(), device)
        trainer.advance()
        began = time.perf_counter()
        for _ in range(TRIED):
            trainer.advance()
        trainer.first_bad()  # waits for a GPU
        seconds = (time.perf_counter() - began) / TRIED
    finally:
        stream.close()
    return seconds, sum(weights.numel() for weights in trainer.sae.parameters())
