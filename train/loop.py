"""The training loop: a stored site -> a dictionary in its run's folder."""

import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tendril.data.cli import note
from tendril.data.device import cpu_threads, keep_freed_memory, resolve_device
from tendril.data.errors import StoreLockedError
from tendril.data.home import find_store, runs_folder
from tendril.data.store.atomic import locked
from tendril.data.store.reader import Store, open_store
from tendril.data.store.spec import canonical_json, slug
from tendril.models.dictionaries.checkpoint import RESULT, read_json

from .checks import memory_told
from .config import BASELINES, TrainConfig
from .distributed import Ranks, launched
from .metrics import evaluate
from .objectives.baselines import fit
from .run import Running, write_result
from .scalars import summary_writer
from .trainer import check_room, products
from .vectors import Source, source_of


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
    fvu_train: float | None = None  # of orbits
    parameters: int = 0
    reused: bool = False

    def summary(self) -> dict[str, Any]:
        """As JSON, for the last line of the command."""
        return {**asdict(self), "run": str(self.run)}


def train(config: TrainConfig, store: Store | None = None) -> TrainResult:
    """Train a dictionary, or go on with it, or give back the one that is there.

    The run's folder is `<home>/runs/<name>-<12 hex of SHA-256 of what determines it>`: the
    config without device, home and logging, the store's spec and the site. A run that was
    stopped goes on from its last checkpoint, and on one CPU ends bit for bit as if it had not
    been. Processes that torchrun launched train it together; rank 0 writes. Raises
    ConfigError, DeviceError and what `open_store` raises.
    """
    store = store or open_store(find_store(config.store, config.home))
    source = source_of(config, store)
    config.check(source.width)
    if config.tensorboard:
        summary_writer()  # refused now rather than in the middle
    keep_freed_memory()
    device = resolve_device(config.device)
    check_room(config, source.width, device)
    ranks = launched(device)
    ranks.share(config.batch_size)
    run = run_folder(config, source, ranks.ranks)
    run.mkdir(parents=True, exist_ok=True)
    with only_trainer(run) if ranks.first else nullcontext():
        if ranks.agreed((run / RESULT).exists()):
            if ranks.first:
                note(f"{run} is there already.")
            return replace(read_result(run), reused=True)
        small = config.is_small(source.width)
        with (
            cpu_threads(config.threads or (1 if small else torch.get_num_threads())),
            products(config.precision, device),
            memory_told(config, source.width),
        ):
            if config.objective not in BASELINES:
                _train(config, source, run, device, ranks)
            elif ranks.first:
                _fit(config, source, run, device)
        ranks.wait()
        return read_result(run)


def run_folder(config: TrainConfig, source: Source, ranks: int = 1) -> Path:
    """Where a run of this config on this source lies. Several processes that train it together
    (`ranks`) see the rows in another order, and so make another dictionary."""
    identity = config.identity() | {"store": source.store.spec, "site": source.name}
    if source.beside:
        identity |= {"beside": source.beside.spec}
    if ranks > 1:
        identity |= {"ranks": ranks}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    name = slug(config.name or f"{config.objective}-{source.name}")
    return runs_folder(config.home) / f"{name}-{digest[:12]}"


@contextmanager
def only_trainer(run: Path) -> Iterator[None]:
    """Within the body no other process trains this run. Raises StoreLockedError."""
    try:
        with locked(run):
            yield
    except StoreLockedError as error:
        raise StoreLockedError(
            f"another process is training {run}; wait until it ends, or stop it and run this "
            "command again: it goes on where that one stopped."
        ) from error


def _train(
    config: TrainConfig, source: Source, run: Path, device: torch.device, ranks: Ranks
) -> None:
    stream = source.training(config, device, ranks)
    running = Running(config, source, run, device, stream, ranks=ranks)
    total, initial = config.steps * config.batch_size, running.trainer.vectors
    with vectors_bar(run.name, total, initial, shown=ranks.first) as bar:
        while not running.done:
            figures = running.take()
            bar.update(config.batch_size)
            if figures:
                shown = {"loss": f"{figures['loss']:.4g}", "fvu": f"{figures['fvu']:.4f}"}
                bar.set_postfix(shown, refresh=False)
    running.finish()


def vectors_bar(name: str, total: int, initial: int, *, shown: bool = True) -> "tqdm[Any]":
    """A bar on stderr that counts vectors."""
    return tqdm(
        total=total,
        initial=initial,
        desc=name,
        unit=" vectors",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 20,
        disable=not shown,
    )


def _fit(config: TrainConfig, source: Source, run: Path, device: torch.device) -> None:
    began = time.monotonic()
    source.scale()  # refuses what cannot be used
    sae, rows = fit(config, source, device)
    held = evaluate(sae, source.once(config, device), config.eval_rows)
    dead = float((held.frequency_S == 0).double().mean())
    write_result(config, source, run, began, sae, held, (0, rows, dead))


def read_result(run: Path) -> TrainResult:
    """What a finished run's result.json says."""
    return TrainResult(run=run, **read_json(run / RESULT))
