"""The training loop: a stored site -> a dictionary in its run's folder."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.command import note
from data.device import cpu_threads, keep_freed_memory, resolve_device
from data.errors import StoreLockedError, StoreNotFoundError
from data.files import locked
from data.home import entries, resolve, runs_folder, stores_folder
from data.reader import Store, open_store
from data.spec import canonical_json, slug
from models.dictionaries.checkpoint import (
    CONFIG,
    RESULT,
    STATE,
    read_json,
    read_tensors,
    save_dictionary,
    write_json,
    write_tensors,
)
from models.dictionaries.folding import folded
from models.dictionaries.sae import SAE, Dictionary

from .baseline import fit
from .config import BASELINES, TrainConfig
from .faults import diverged, memory_told
from .metrics import EVALUATION_COLUMNS, Evaluation, append_metrics, begin_metrics, evaluate
from .objectives import make_objective
from .source import Source, source_of
from .trainer import Trainer, check_room, products

METRICS, EVALUATIONS = "metrics.csv", "evaluations.csv"


@dataclass(frozen=True)
class TrainResult:
    """A finished run: figures are of held-out vectors, `dead` is of the training's end (of a
    baseline, which was not trained, the share of latents that no held-out vector turns on)."""

    run: Path
    store: str
    site: str
    fvu: float
    l0: float
    dead: float
    steps: int
    vectors: int
    eval_rows: int
    seconds: float
    reused: bool = False

    def summary(self) -> dict[str, Any]:
        """As JSON, for the last line of the command."""
        return {**asdict(self), "run": str(self.run)}


def train(config: TrainConfig, store: Store | None = None) -> TrainResult:
    """Train a dictionary, or go on with it, or give back the one that is there.

    The run's folder is `<home>/runs/<name>-<12 hex of SHA-256 of what determines it>`: the
    config without device, home and logging, the store's spec and the site. A run that was
    stopped goes on from its last checkpoint, and on one CPU ends bit for bit as if it had not
    been. Raises ConfigError, DeviceError and what `open_store` raises.
    """
    store = store or find_store(config)
    source = source_of(config, store)
    config.check(source.width)
    keep_freed_memory()
    device = resolve_device(config.device)
    check_room(config, source.width, device)
    run = run_folder(config, store, source.name)
    run.mkdir(parents=True, exist_ok=True)
    with _only_trainer(run):
        if (run / RESULT).exists():
            note(f"{run} is there already.")
            return replace(_read_result(run), reused=True)
        small = config.is_small(source.width)
        with (
            cpu_threads(config.threads or (1 if small else torch.get_num_threads())),
            products(config.precision, device),
            memory_told(config, source.width),
        ):
            make = _fit if config.objective in BASELINES else _train
            make(config, source, run, device)
    return _read_result(run)


def find_store(config: TrainConfig) -> Store:
    """The store that a config names. Raises StoreNotFoundError, saying what there is."""
    folder = stores_folder(config.home)
    path = resolve(config.store, folder, "zarr.json")
    if path is None:
        names = [p.name for p in entries(folder, "zarr.json")]
        there = f"it holds {', '.join(names)}" if names else "it holds none"
        raise StoreNotFoundError(
            f"there is no store {config.store!r}, as a path or in {folder} ({there}); "
            "`make harvest` makes one, and so does a recipe of `python -m harvest --help`."
        )
    return open_store(path)


def run_folder(config: TrainConfig, store: Store, site: str) -> Path:
    """Where a run of this config on this store lies."""
    identity = config.identity() | {"store": store.spec, "site": site}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    name = slug(config.name or f"{config.objective}-{site}")
    return runs_folder(config.home) / f"{name}-{digest[:12]}"


@contextmanager
def _only_trainer(run: Path) -> Iterator[None]:
    try:
        with locked(run):
            yield
    except StoreLockedError as error:
        raise StoreLockedError(
            f"another process is training {run}; wait until it ends, or stop it and run this "
            "command again: it goes on where that one stopped."
        ) from error


def _train(config: TrainConfig, source: Source, run: Path, device: torch.device) -> None:
    began = time.monotonic()
    scale = source.scale()
    objective = make_objective(config, source.width, source.joint)
    trainer = Trainer(config, objective, source.training(config, device), scale, device)
    _write_config(config, source, run, trainer.sae)
    seconds = 0.0
    if (run / STATE).exists():
        seconds = trainer.restore(*read_tensors(run / STATE))
        note(f"going on with {run} from step {trainer.step}.")
    began -= seconds
    begin_metrics(run / METRICS, trainer.step)
    if config.eval_every:
        begin_metrics(run / EVALUATIONS, trainer.step, EVALUATION_COLUMNS)

    def held_out() -> tuple[SAE, Evaluation]:
        dictionary = folded(trainer.sae, scale)
        return dictionary, evaluate(dictionary, source.once(config, device), config.eval_rows)

    _steps(trainer, source, run, began, lambda: held_out()[1])
    dictionary, held = held_out()
    trained = (config.steps, trainer.vectors, trainer.dead_share())
    _write_result(config, source, run, began, dictionary, held, trained)


def _fit(config: TrainConfig, source: Source, run: Path, device: torch.device) -> None:
    began = time.monotonic()
    source.scale()  # refuses what cannot be used
    sae, rows = fit(config, source, device)
    held = evaluate(sae, source.once(config, device), config.eval_rows)
    dead = float((held.frequency_S == 0).double().mean())
    _write_result(config, source, run, began, sae, held, (0, rows, dead))


def _steps(
    trainer: Trainer, source: Source, run: Path, began: float, held_out: Callable[[], Evaluation]
) -> None:
    """Take the steps that are left, with a bar, lines of metrics, evaluations, checkpoints."""
    config, kept = trainer.config, trainer.step

    def every(steps: int) -> bool:
        return bool(steps) and (trainer.step == config.steps or trainer.step % steps == 0)

    with tqdm(
        total=config.steps * config.batch_size,
        initial=trainer.vectors,
        desc=run.name,
        unit=" vectors",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 20,
    ) as bar:
        while trainer.step < config.steps:
            lr = trainer.rate()
            x_ND, loss = trainer.advance()
            bar.update(config.batch_size)
            asked = [every(n) for n in (config.log_every, config.checkpoint_every)]
            if x_ND.device.type == "cpu" or any(asked) or every(config.eval_every):
                bad = trainer.first_bad()  # before anything is written
                if bad is not None:
                    diverged(source.store, source.sites, bad, kept, config.lr)
            if every(config.log_every):
                figures = trainer.figures(x_ND, loss) | {"lr": lr}
                append_metrics(run / METRICS, figures)
                shown = {"loss": f"{figures['loss']:.4g}", "fvu": f"{figures['fvu']:.4f}"}
                bar.set_postfix(shown, refresh=False)
            if every(config.eval_every):
                _append_evaluation(trainer, run, held_out())
            if every(config.checkpoint_every):
                write_tensors(run / STATE, *trainer.state(time.monotonic() - began))
                kept = trainer.step


def _append_evaluation(trainer: Trainer, run: Path, held: Evaluation) -> None:
    figures = {"step": trainer.step, "vectors": trainer.vectors, "fvu": held.fvu, "l0": held.l0}
    append_metrics(run / EVALUATIONS, figures, EVALUATION_COLUMNS)


def _write_config(config: TrainConfig, source: Source, run: Path, dictionary: Dictionary) -> None:
    """config.json: the config, and what it was asked of, with no absolute path."""
    store = source.store
    told = {
        **asdict(config),
        "home": "",
        "store": store.name,
        "store_path": os.path.relpath(store.path, run),
        "site": source.name,
        "sites": source.blocks,
        "width": source.width,
        "latents": dictionary.latents,
        "subject": store.spec["subject"],
        "dictionary": dictionary.plain().description(),
    }
    write_json(run / CONFIG, told)


def _write_result(
    config: TrainConfig,
    source: Source,
    run: Path,
    began: float,
    sae: SAE,
    held: Evaluation,
    trained: tuple[int, int, float],
) -> None:
    _write_config(config, source, run, sae)
    save_dictionary(run, sae, read_json(run / CONFIG), held.frequency_S)
    steps, vectors, dead = trained
    write_json(
        run / RESULT,
        {
            "store": source.store.name,
            "site": source.name,
            "fvu": held.fvu,
            "l0": held.l0,
            "dead": dead,
            "steps": steps,
            "vectors": vectors,
            "eval_rows": held.rows,
            "seconds": round(time.monotonic() - began, 3),
        },
    )


def _read_result(run: Path) -> TrainResult:
    return TrainResult(run=run, **read_json(run / RESULT))
