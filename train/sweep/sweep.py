"""Many dictionaries in one pass over a store, each of them an ordinary run."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.cli import Outcome, need, note
from tendril.data.device import cpu_threads, keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import runs_folder
from tendril.data.store.atomic import check_not_link, locked, remove_asides
from tendril.data.store.spec import canonical_json, slug
from tendril.models.dictionaries.checkpoint import (
    RESULT,
    STATE,
    read_config,
    read_tensors,
    write_json,
)

from ..checks import warn, warnings_of_result
from ..config import BASELINES, TrainConfig
from ..loggers import check_loggers
from ..loop import (
    TrainResult,
    check_memory,
    memory_errors,
    next_command,
    only_trainer,
    products,
    read_result,
    run_folder,
    signals_wait_for_a_step,
    stop,
    train,
    vectors_bar,
)
from ..outliers import note_of_centring
from ..run import Running, data_warnings
from ..trainer import Stream, Trainer
from ..vectors import Source, source_of, store_of
from .config import SweepConfig
from .stacked_topk import stacked_losses, stacks
from .table import RUNS, write_table

SWEEP = "sweep.json"
SHOWN = 5  # names of runs in a warning
WORKERS = 8  # steps at a time; each has its own arrays of the size of a batch


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep: its folder with table and plot, its runs, and the errors of those that
    failed. `best` is the run with the smallest FVU."""

    sweep: Path
    site: str
    store: str
    runs: int
    trained: int
    failed: dict[str, str]
    seconds: float
    best: str
    fvu: tuple[float, float]

    def outcome(self, home: str = "") -> Outcome:
        """What the command prints. The table is in a file."""
        low, high = self.fvu
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return Outcome(
            {
                "sweep": str(self.sweep),
                "table": str(self.sweep / RUNS),
                "runs": self.runs,
                "trained": self.trained,
                "failed": len(self.failed),
                "best": self.best,
                "fvu": low,
                "seconds": self.seconds,
            },
            f"Swept {self.runs} dictionaries on {self.site} of {self.store} ({self.trained} "
            f"trained now{failed}): FVU {low:.3g} to {high:.3g}; table in {self.sweep / RUNS}",
            next_command(read_config(self.sweep.parent / self.best), self.best, home),
        )


@final
class Shared:
    """One stream for several trainers: all get the same batch, centred and scaled, until `turn`
    moves on."""

    def __init__(
        self,
        stream: Stream,
        scale: float | Float[Tensor, " d"],
        centre: Float[Tensor, " d"] | None = None,
    ) -> None:
        self._stream, self._scale, self._centre = stream, scale, centre
        self._batch_ND: Tensor | None = None

    def __next__(self) -> Float[Tensor, "n d"]:
        if self._batch_ND is None:
            x_ND = next(self._stream)
            if self._centre is not None:
                x_ND = x_ND - self._centre.to(x_ND.device)
            scale = self._scale
            self._batch_ND = x_ND * (scale.to(x_ND.device) if isinstance(scale, Tensor) else scale)
        return self._batch_ND

    def turn(self) -> None:
        """Move to the next batch."""
        self._batch_ND = None

    def state(self) -> dict[str, int]:
        """The state of the stream, after the current batch."""
        return self._stream.state()

    def restore(self, state: dict[str, int]) -> None:
        """Do nothing: one stream cannot go back for each of its readers. See `start`."""

    def start(self, state: dict[str, int]) -> None:
        """Continue from a state, for all trainers."""
        self._stream.restore(state)
        self._batch_ND = None


def sweep(config: SweepConfig) -> SweepResult:
    """Train all runs of a grid that do not exist yet, in one pass over the vectors.

    Each run is the one that `train` makes from the same config, in the same folder. A run that
    diverges is reported and left out, and the others continue. Table (JSON and CSV) and plot are
    written to `<home>/runs/<name>-<12 hex of what determines the runs>`. Raises ConfigError,
    DeviceError, what `open_store` raises, and the error of a run if every run failed.
    """
    need("a sweep", "matplotlib")
    began = time.monotonic()
    runs = config.runs()
    source = source_of(config.base, store_of(config.base))
    device = resolve_device(config.base.device)
    folders = {run_folder(run, source): run for run in runs}
    for run in runs:
        run.check(source.width)
        check_memory(run, source.width, device)
    check_loggers(config.base)
    keep_freed_memory()
    digest = hashlib.sha256(canonical_json(sorted(f.name for f in folders)).encode()).hexdigest()
    name = slug(f"sweep-{config.base.name or source.name}")
    folder = runs_folder(config.base.home) / f"{name}-{digest[:12]}"
    again = config.base.overwrite
    group = config.base.wandb_group or folder.name
    left = {
        path: replace(run, wandb_group=group if run.wandb else "")
        for path, run in folders.items()
        if again or not (path / RESULT).exists()
    }
    note(f"{len(folders)} runs, {len(left)} of them to be trained.")
    failed = _train_all(left, source, device)
    if left and len(failed) == len(folders):
        raise next(iter(failed.values()))
    check_not_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = replace(config.base, home="", overwrite=False)
    done = [(run, read_result(path)) for path, run in folders.items() if path not in failed]
    with locked(folder, wait=True):
        remove_asides(folder)
        write_json(folder / SWEEP, asdict(replace(config, base=base)))
        write_table(folder, done, source.name, SWEEP)
    bad = [result.run.name for _, result in done if _warnings(result)]
    if bad:
        listed = ", ".join(bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
        note(
            f"warning: {len(bad)} of {len(done)} runs are mostly dead or have an FVU above 1 or of "
            f"norm outliers ({listed}). `tendril data info RUN` says what to do."
        )
    best = min(done, key=lambda one: one[1].fvu)[1]
    return SweepResult(
        sweep=folder,
        site=source.name,
        store=source.store.name,
        runs=len(done),
        trained=len(left) - len(failed),
        failed={path.name: str(error) for path, error in failed.items()},
        seconds=round(time.monotonic() - began, 3),
        best=best.run.name,
        fvu=(best.fvu, max(result.fvu for _, result in done)),
    )


def _warnings(result: TrainResult) -> list[str]:
    return warnings_of_result(result.fvu, result.dead, result.fvu_without_outliers)


def _train_all(
    left: Mapping[Path, TrainConfig], source: Source, device: torch.device
) -> dict[Path, ConfigError]:
    """Fit baselines one by one, and train the others in one pass. Returns the errors of those that
    failed."""
    failed: dict[Path, ConfigError] = {}
    together = {path: run for path, run in left.items() if run.objective not in BASELINES}
    for path, run in left.items():
        if path not in together:
            try:
                train(run, source.store)
            except ConfigError as error:
                _leave_out(failed, path, error)
    if together:
        some = next(iter(together.values()))
        with (
            cpu_threads(step_threads(list(together.values()), source.width)),
            products(some.precision, device),
            memory_errors(some, source.width),
        ):
            failed |= _one_pass(together, source, device)
    return failed


def step_threads(runs: Sequence[TrainConfig], width: int) -> int:
    """CPU threads of a sweep: as many as requested, or one if all steps are small."""
    requested = runs[0].threads if runs else 0
    return requested or (1 if all(run.is_small(width) for run in runs) else torch.get_num_threads())


def _one_pass(
    configs: Mapping[Path, TrainConfig], source: Source, device: torch.device
) -> dict[Path, ConfigError]:
    """Train runs that see the same batches in the same order. A run that is ahead, because the
    others were stopped before they wrote a checkpoint, waits for them."""
    some = next(iter(configs.values()))
    warn(text for run in configs.values() for text in data_warnings(run, source))
    note_of_centring(source.parts, source.channels)
    stream = Shared(source.training(some, device), source.scale(), source.centre())
    beginning = stream.state()
    failed: dict[Path, ConfigError] = {}
    held_out = _kept(lambda: source.once(some, device), some.eval_rows)
    with ExitStack() as locks:
        for path in configs:
            check_not_link(path)
            path.mkdir(parents=True, exist_ok=True)
            locks.enter_context(only_trainer(path, overwrite=configs[path].overwrite))
        lost: set[str] = set()
        how: dict[str, Any] = {"scaled": True, "held_out": held_out, "lost": lost}
        runs = [Running(run, source, path, device, stream, **how) for path, run in configs.items()]
        last = min(runs, key=lambda run: run.trainer.step)
        at = read_tensors(last.run / STATE)[1]["reader"] if last.trainer.step else beginning
        stream.start(at)
        seen = sum(run.trainer.vectors for run in runs)
        total = sum(run.config.steps * run.config.batch_size for run in runs)
        with (
            signals_wait_for_a_step() as stop_requested,
            vectors_bar(f"{len(runs)} runs", total, seen) as bar,
            side_by_side(device) as each,
        ):
            while still := [run for run in runs if not run.done and run.run not in failed]:
                if stop_requested():
                    stop(still)
                step = min(run.trainer.step for run in still)
                stream.turn()
                now = [run for run in still if run.trainer.step == step]
                for run, error in _step(now, stream, each).items():
                    _leave_out(failed, run.run, error)
                bar.update(sum(run.config.batch_size for run in now))
            list(each(Running.finish, [run for run in runs if run.run not in failed]))
    return failed


def _step(
    runs: Sequence[Running], stream: Shared, each: Callable[..., Iterable[Any]]
) -> dict[Running, ConfigError]:
    """Take one step of each run, those of one shape at once. Returns the errors of those that
    failed."""
    by_trainer = {run.trainer: run for run in runs}
    next(stream)  # read here, not by the first of several threads that need it

    def take(stack: Sequence[Trainer]) -> dict[Running, ConfigError]:
        losses = stacked_losses(stack, stack[0].next()) if len(stack) > 1 else [None]
        failed: dict[Running, ConfigError] = {}
        for trainer, loss in zip(stack, losses, strict=True):
            try:
                by_trainer[trainer].take(loss)
            except ConfigError as error:
                failed[by_trainer[trainer]] = error
        return failed

    failed: dict[Running, ConfigError] = {}
    for some in each(take, stacks(list(by_trainer))):
        failed |= some
    return failed


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map`; on a CPU with as many threads as torch has, so that each step has a core for itself:
    the threads of one step would wait for each other after each of its products."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield map
        return
    workers = min(threads, WORKERS)
    begin = partial(torch.set_num_threads, threads // workers)
    with ThreadPoolExecutor(workers, "step", initializer=begin) as pool:
        yield pool.map


def _leave_out(failed: dict[Path, ConfigError], run: Path, error: ConfigError) -> None:
    note(f"{run.name} is left out: {error}")
    failed[run] = error


def _kept(
    read: Callable[[], Iterator[Float[Tensor, "n d"]]], rows: int
) -> Callable[[], Iterable[Float[Tensor, "n d"]]]:
    """Read the first `rows` vectors only once, for any number of calls and threads."""
    kept: list[Tensor] = []
    filling = Lock()

    def batches() -> Iterable[Float[Tensor, "n d"]]:
        with filling:
            if not kept:
                for x_ND in read():
                    kept.append(x_ND)
                    if sum(map(len, kept)) >= rows:
                        break
        return kept

    return batches
