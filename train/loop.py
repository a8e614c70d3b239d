"""The training loop: a stored site -> a dictionary in its run's folder."""

import hashlib
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.command import note
from data.device import cpu_threads, keep_freed_memory, resolve_device
from data.errors import ConfigError, StoreLockedError, StoreNotFoundError
from data.files import locked
from data.folder import SCHEME
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
from models.dictionaries.sae import SAE, folded

from .config import TrainConfig
from .metrics import append_metrics, begin_metrics, evaluate
from .objectives import make_objective
from .trainer import Trainer, check_room

METRICS = "metrics.csv"


@dataclass(frozen=True)
class TrainResult:
    """A finished run: figures are of held-out vectors, `dead` is of the training's end."""

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
    site = store.check_site(config.site or store.sites[0])
    config.check(store.width(site))
    keep_freed_memory()
    device = resolve_device(config.device)
    check_room(config, store.width(site), device)
    run = run_folder(config, store, site)
    run.mkdir(parents=True, exist_ok=True)
    with _only_trainer(run):
        if (run / RESULT).exists():
            note(f"{run} is there already.")
            return replace(_read_result(run), reused=True)
        small = config.is_small(store.width(site))
        with cpu_threads(config.threads or (1 if small else torch.get_num_threads())):
            _train(config, store, site, run, device)
    return _read_result(run)


def find_store(config: TrainConfig) -> Store:
    """The store that a config names. Raises StoreNotFoundError, saying what there is."""
    if SCHEME in config.store:
        return open_store(config.store)
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


def _train(config: TrainConfig, store: Store, site: str, run: Path, device: torch.device) -> None:
    began = time.monotonic()
    training, held_out = (
        store.batches(
            site,
            config.batch_size,
            seed=config.seed,
            device=device,
            part=part,
            held_out=config.held_out,
            epochs=epochs,
        )
        for part, epochs in (("train", None), ("held_out", 1))
    )
    scale = _scale(store, site)
    trainer = Trainer(config, make_objective(config, store.width(site)), training, scale, device)
    told = _told(config, store, site, run, trainer.sae)
    write_json(run / CONFIG, told)
    seconds = 0.0
    if (run / STATE).exists():
        seconds = trainer.restore(*read_tensors(run / STATE))
        note(f"going on with {run} from step {trainer.step}.")
    began -= seconds
    begin_metrics(run / METRICS, trainer.step)
    _steps(trainer, run, began)
    dictionary = folded(trainer.sae, scale).to(device)
    held = evaluate(dictionary, held_out, config.eval_rows)
    save_dictionary(run, dictionary, told, held.frequency_S)
    write_json(
        run / RESULT,
        {
            "store": store.name,
            "site": site,
            "fvu": held.fvu,
            "l0": held.l0,
            "dead": trainer.dead_share(),
            "steps": config.steps,
            "vectors": trainer.vectors,
            "eval_rows": held.rows,
            "seconds": round(time.monotonic() - began, 3),
        },
    )


def _steps(trainer: Trainer, run: Path, began: float) -> None:
    """Take the steps that are left, with a bar, lines of metrics and checkpoints."""
    config = trainer.config
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
            last = trainer.step == config.steps
            if last or trainer.step % config.log_every == 0:
                figures = trainer.figures(x_ND, loss) | {"lr": lr}
                append_metrics(run / METRICS, figures)
                shown = {"loss": f"{figures['loss']:.4g}", "fvu": f"{figures['fvu']:.4f}"}
                bar.set_postfix(shown, refresh=False)
            if last or trainer.step % config.checkpoint_every == 0:
                trainer.check_finite(loss)
                seconds = time.monotonic() - began
                write_tensors(run / STATE, *trainer.state(seconds))


def _scale(store: Store, site: str) -> float:
    """The one number that makes E||x||^2 = D, from the store's own moments."""
    moments = store.moments(site)
    if not moments.variance.sum() > 0:
        raise ConfigError(
            f"every vector of {site} in {store.name} is the same, so there is nothing to learn; "
            "choose another --site."
        )
    return math.sqrt(store.width(site) / float((moments.variance + moments.mean**2).sum()))


def _told(config: TrainConfig, store: Store, site: str, run: Path, sae: SAE) -> dict[str, Any]:
    """config.json: the config, and what it was asked of, with no absolute path."""
    return {
        **asdict(config),
        "home": "",
        "store": store.name,
        "store_path": (
            store.location if SCHEME in store.location else os.path.relpath(store.path, run)
        ),
        "site": site,
        "width": store.width(site),
        "latents": sae.latents,
        "subject": store.spec["subject"],
        "dictionary": sae.description(),
    }


def _read_result(run: Path) -> TrainResult:
    return TrainResult(run=run, **read_json(run / RESULT))
