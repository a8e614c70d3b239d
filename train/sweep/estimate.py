"""`--dry-run` of a sweep: what it would take, from a few steps of each of its settings."""

import time
from dataclasses import replace

import torch

from tendril.data.cli import Outcome
from tendril.data.device import cpu_threads, keep_freed_memory, resolve_device
from tendril.models.dictionaries.checkpoint import RESULT

from ..config import BASELINES, TrainConfig
from ..loggers import check_loggers
from ..loop import check_memory, products, run_folder
from ..objectives.base import make_objective
from ..trainer import Trainer
from ..vectors import Source, source_of, store_of
from .config import SweepConfig
from .sweep import step_threads

TRIED = 2  # steps that are timed, after one to warm up


def estimate(config: SweepConfig, command: str = "") -> Outcome:
    """The runs that are left, and the bytes on disk (and as many of memory) and seconds they need.

    Each setting (a run, whatever its seed) takes three steps on the store's own vectors.
    Baselines, evaluation and reading are not counted: they are small beside training. `command` is
    the one that trains. Raises what `sweep` raises before its first step.
    """
    source = source_of(config.base, store_of(config.base))
    check_loggers(config.base)
    device = resolve_device(config.base.device)
    keep_freed_memory()
    runs = config.runs()
    for run in runs:
        run.check(source.width)
        check_memory(run, source.width, device)
    left = [run for run in runs if run.overwrite or not (run_folder(run, source) / RESULT).exists()]
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
            stored += 4 * 4 * floats * len(alike)  # the dictionary, and the state to resume from
    figures = {"runs": len(runs), "left": len(left), "bytes": stored, "seconds": round(seconds, 1)}
    return Outcome(
        {"dry_run": True, **figures},
        f"{len(runs)} runs on {source.name} of {source.store.name}, {len(left)} of them to be "
        f"trained: about {seconds / 60:,.0f} minutes on {device} ({threads} threads), "
        f"{stored / 1e6:,.0f} MB of disk and as much memory",
        command,
    )


def _tried(config: TrainConfig, source: Source, device: torch.device) -> tuple[float, int]:
    """Seconds of a step, and the number of weights."""
    stream = source.training(config, device)
    try:
        objective = make_objective(config, source.width, source.joint)
        scale, centre = source.scale(), source.centre()
        trainer = Trainer(config, objective, stream, scale, device, centre=centre)
        trainer.advance()
        began = time.perf_counter()
        for _ in range(TRIED):
            trainer.advance()
        trainer.first_bad()  # waits for a GPU
        seconds = (time.perf_counter() - began) / TRIED
    finally:
        stream.close()
    return seconds, sum(weights.numel() for weights in trainer.sae.parameters())
