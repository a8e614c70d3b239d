"""The training loop: a stored site -> a dictionary in the folder of its run."""

import hashlib
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from signal import SIGINT, SIGTERM
from types import FrameType
from typing import Any, NoReturn, final

import torch
from tqdm import tqdm

from tendril.data.cli import Outcome, Shown, note, progress_bar, scalars
from tendril.data.device import cpu_threads, keep_freed_memory, launched_as, resolve_device
from tendril.data.errors import ConfigError, StoreLockedError, is_out_of_memory
from tendril.data.home import runs_folder
from tendril.data.store.atomic import (
    ASIDE,
    check_no_links,
    check_not_link,
    locked,
    remove_asides,
)
from tendril.data.store.folder import sweep_beside
from tendril.data.store.reader import Store
from tendril.data.store.spec import canonical_json, slug
from tendril.models.dictionaries.checkpoint import (
    CONFIG,
    DICTIONARY,
    RESULT,
    STATE,
    check_fields,
    check_files,
    read_config,
    read_figures,
)

from .checks import warn, warnings_of_result
from .config import BASELINES, TrainConfig, what_of, where_of
from .metrics import evaluate
from .outliers import note_of_centring
from .run import METRICS, Running, data_warnings, loggers_of, write_result
from .trainer import ALONE, Ranks
from .vectors import Source, source_of, store_of


@final
@dataclass(frozen=True, repr=False)
class TrainResult(Shown):
    """A finished run. Figures are of held-out vectors; `dead` is of the end of training (of a
    baseline, which is not trained, the fraction of latents that fire on no held-out vector)."""

    run: Path
    label: str
    store: str
    site: str
    fvu: float
    l0: float
    dead: float
    steps: int
    vectors: int
    eval_rows: int
    seconds: float
    fvu_without_outliers: float | None = None  # where norm outliers are kept, and there are any
    fvu_train: float | None = None  # of orbits
    parameters: int = 0
    warnings: list[str] = field(default_factory=list)  # what a reader of the figures must know
    reused: bool = False

    def _card(self) -> Any:
        from tendril.models.dictionaries.run import run_card  # a command needs none

        return run_card(self.run, asdict(self), asdict(self))

    def summary(self) -> dict[str, Any]:
        """The result as JSON."""
        return {**asdict(self), "run": str(self.run)}

    def outcome(self, home: str = "") -> Outcome:
        """What the command prints."""
        trained = read_config(self.run)
        verb = "Trained" if self.steps else "Fitted"
        unit = "families" if trained["objective"] == "equivariant" else "latents"
        return Outcome(
            scalars(self.summary()),
            f"{'Already there:' if self.reused else verb} {what_of(trained)}, on "
            f"{where_of(trained)} of {self.store}: FVU {self.fvu:.3g}, {self.l0:.1f} {unit} "
            f"active, {100 * self.dead:.1f} % dead; {self.run}",
            next_command(trained, self.run.name, home),
        )


def next_command(trained: dict[str, Any], run: str, home: str = "") -> str:
    """The command that studies a run with this config.json."""
    text = {"tokenizer", "tokens"} & (trained["subject"] or {}).keys()
    if trained["group"]:
        words = ["study", "symmetry", "--run", run]
    elif len(trained["sites"] or ()) > 1:
        words = ["study", "parts", "--run", run]
    elif text or max(trained["grid"] or (), default=1) > 1:
        words = ["study", "features", "--run", run]
    else:
        words = ["data", "info", run]
    return shlex.join(["tendril", *words, *(("--home", home) if home else ())])


def train(config: TrainConfig, store: Store | None = None) -> TrainResult:
    """Train a dictionary, or continue a stopped run, or return a finished one.

    The run's folder is `<home>/runs/<name>-<12 hex of SHA-256 of what determines it>`: the fields
    that the objective uses, the store's spec and the site. A stopped run continues from its last
    checkpoint and ends, on one CPU, with the same bits. Processes that torchrun launched train it
    together; rank 0 writes. Raises ConfigError, DeviceError and what `open_store` raises.
    """
    return train_on(config, checked_source(config, store))


def train_on(config: TrainConfig, source: Source, without: Sequence[str] = ()) -> TrainResult:
    """`train` on vectors that are known. `without` names the runs that the
    source subtracts."""
    keep_freed_memory()
    device = resolve_device(config.device)
    check_memory(config, source.width, device)
    ranks = together(device)
    ranks.rows_of(config.batch_size)
    run = run_folder(config, source, ranks.ranks, without)
    check_not_link(run)
    run.mkdir(parents=True, exist_ok=True)
    with only_trainer(run, overwrite=config.overwrite) if ranks.first else nullcontext():
        if ranks.agreed((run / RESULT).exists()):
            if ranks.first:
                note(f"{run} exists already.")
            return replace(read_result(run), reused=True)
        small = config.is_small(source.width)
        with (
            cpu_threads(config.threads or (1 if small else torch.get_num_threads())),
            products(config.precision, device),
            memory_errors(config, source.width),
        ):
            if ranks.first:
                next(source.once(config, device))  # no held-out vectors: refused before step 0
                warn(data_warnings(config, source))
                note_of_centring(source.parts, source.channels)
            if config.objective not in BASELINES:
                _train(config, source, run, device, ranks)
            elif ranks.first:
                _fit(config, source, run, device)
        ranks.wait()
        result = read_result(run)
        if ranks.first:
            warn(warnings_of_result(result.fvu, result.dead, result.fvu_without_outliers))
        return result


def checked_source(config: TrainConfig, store: Store | None = None) -> Source:
    """The vectors of a config. Raises ConfigError if it cannot be trained on them."""
    source = source_of(config, store or store_of(config))
    config.check(source.width)
    if config.tensorboard or config.wandb:
        from .loggers import check_loggers

        check_loggers(config)  # refused now rather than in the middle
    return source


def run_folder(
    config: TrainConfig, source: Source, ranks: int = 1, without: Sequence[str] = ()
) -> Path:
    """The folder of the run of this config on this source. Several processes (`ranks`) read the
    rows in another order than one, and so train another dictionary."""
    identity = config.identity() | {"store": source.store.spec, "site": source.name}
    if source.paired:
        identity |= {"paired_store": source.paired.spec}
    if without:
        identity |= {"without": list(without)}
    if config.remove_span:
        from .left import digest_of_span

        identity |= {"remove_span": digest_of_span(config)}
    if ranks > 1:
        identity |= {"ranks": ranks}
    if source.alters:  # earlier versions scaled by all rows: another dictionary
        identity |= {"scale": "used rows"}
    if source.centred:  # earlier versions did not centre
        identity |= {"centre": "mean"}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    name = slug(config.name or f"{config.objective}-{source.name}")
    return runs_folder(config.home) / f"{name}-{digest[:12]}"


@contextmanager
def only_trainer(run: Path, *, overwrite: bool = False) -> Iterator[None]:
    """A context in which no other process trains this run, emptied first if `overwrite`, else of
    the temporary files of a killed process.

    Raises StoreLockedError, and ConfigError for a folder with symbolic links or of another kind.
    """
    sweep_beside(run)
    try:
        with locked(run):
            if overwrite:
                clear(run)
            if not (run / RESULT).exists():
                check_no_links(run)
            remove_asides(run)
            yield
    except StoreLockedError as error:
        raise StoreLockedError(
            f"another process is training {run}. Wait until it ends, or stop it and run this "
            "command again: it continues where that one stopped."
        ) from error


def clear(run: Path) -> None:
    """Remove the files of a run: first what marks it as finished, last what marks it as a run.

    Symbolic links are removed and never followed. Raises ConfigError if the folder is a link, or
    holds files and none that training writes.
    """
    check_not_link(run)
    names = {path.name for path in run.iterdir()}
    if not names & {CONFIG, METRICS, RESULT, STATE, DICTIONARY} and any(
        not name.endswith(ASIDE) for name in names
    ):
        raise ConfigError(
            f"{run} must be a run; got a folder without {CONFIG}, which is left alone. Move it "
            "away, or give another --home or --name."
        )
    (run / RESULT).unlink(missing_ok=True)
    for path in sorted(run.iterdir(), key=lambda path: path.name == CONFIG):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def products(precision: str, device: torch.device) -> Iterator[None]:
    """A context in which a GPU multiplies float32 as TF32, unless `precision` is float32."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_memory(config: TrainConfig, width: int, device: torch.device) -> None:
    """Raise ConfigError if a step cannot fit the memory of the device: two matrices with gradient
    and two moments each, and four tensors [batch, latents], all float32."""
    latents = config.latents_for(width)
    needed = 4 * (8 * latents * width + 4 * config.batch_size * latents)
    if device.type == "cuda":
        present = torch.cuda.mem_get_info(device)[1]
    else:
        present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise ConfigError(
            f"{latents} latents of width {width} with {config.batch_size} vectors a step need "
            f"about {needed / 1e9:.1f} GB; this {device.type} has {present / 1e9:.1f} GB. Lower "
            "--latents or --batch-size."
        )


@contextmanager
def memory_errors(config: TrainConfig, width: int) -> Iterator[None]:
    """A context that turns running out of memory into a ConfigError that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batch = f"--batch-size (now {config.batch_size})"
        latents = f"--latents (now {config.latents_for(width)})"
        # [batch, latents] tensors against weights, gradients and moments
        first, then = (batch, latents) if config.batch_size > 2 * width else (latents, batch)
        raise ConfigError(
            f"the device is out of memory. Lower {first} first, then {then}."
        ) from error


def together(device: torch.device) -> Ranks:
    """The processes that train together: those that torchrun launched, or this one alone."""
    if launched_as()[1] == 1:
        return ALONE
    from .distributed import launched

    return launched(device)


def is_first() -> bool:
    """True for the process that reports results: rank 0, or one that is alone."""
    return launched_as()[0] == 0


def _train(
    config: TrainConfig, source: Source, run: Path, device: torch.device, ranks: Ranks
) -> None:
    stream = source.training(config, device, ranks)
    running = Running(config, source, run, device, stream, ranks=ranks)
    total, initial = config.steps * config.batch_size, running.trainer.vectors
    alone = ranks.ranks == 1  # processes get signals at different steps
    with (
        signals_wait_for_a_step() if alone else nullcontext(lambda: False) as stop_requested,
        vectors_bar(run.name, total, initial, shown=ranks.first) as bar,
    ):
        while not running.done:
            if stop_requested():
                stop([running])
            figures = running.take()
            bar.update(config.batch_size)
            if figures:
                shown = {"loss": f"{figures['loss']:.4g}", "fvu": f"{figures['fvu']:.4f}"}
                bar.set_postfix(shown, refresh=False)
    running.finish()


@contextmanager
def signals_wait_for_a_step() -> Iterator[Callable[[], bool]]:
    """A context in which Ctrl-C and SIGTERM do not interrupt a step.

    Yields a function that returns True once a signal has come. A second signal interrupts at
    once. Outside the main thread signals are handled as before.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, receive) for number in (SIGINT, SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(runs: Sequence[Running]) -> NoReturn:
    """Write a checkpoint of each run and raise KeyboardInterrupt."""
    for running in runs:
        running.checkpoint()
        running.leave()
        note(f"{running.run}: checkpoint of step {running.trainer.step} written.")
    raise KeyboardInterrupt


def vectors_bar(name: str, total: int, initial: int, *, shown: bool = True) -> "tqdm[Any]":
    """A progress bar on stderr that counts vectors."""
    return progress_bar(
        total=total,
        initial=initial,
        desc=name,
        unit=" vectors",
        unit_scale=True,
        disable=not shown,
    )


def _fit(config: TrainConfig, source: Source, run: Path, device: torch.device) -> None:
    from .objectives.baselines import fit

    began = time.monotonic()
    source.scale()  # refuses vectors that cannot be used
    sae, rows = fit(config, source, device)
    rows_held = source.once(config, device)
    held = evaluate(sae, rows_held, config.eval_rows, source.outlier_test)
    dead = float((held.frequency_S == 0).double().mean())
    write_result(config, source, run, began, sae, held, (0, rows, dead))
    if loggers := loggers_of(config, run, 0):
        loggers.finish(read_figures(run))


def read_result(run: Path) -> TrainResult:
    """The result.json of a finished run. Raises RunDamagedError if any of its files has changed."""
    check_files(run)
    figures = read_figures(run)
    own = ("run", "reused")
    check_fields(figures, TrainResult, run / RESULT, but=own)
    names = {one.name for one in fields(TrainResult)}.difference(own)
    return TrainResult(run=run, **{n: v for n, v in figures.items() if n in names})
