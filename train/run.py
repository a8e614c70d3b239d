"""A run that is being trained: its steps, and what they leave in its folder.

`train` drives one of them, a sweep many over the same vectors.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.cli import note
from tendril.data.home import SCHEME
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import (
    CONFIG,
    RESULT,
    STATE,
    read_json,
    read_tensors,
    save_dictionary,
    write_json,
    write_tensors,
)
from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.sae import Dictionary, Stored

from .checks import diverged
from .config import TrainConfig
from .distributed import ALONE, Ranks
from .metrics import EVALUATION_COLUMNS, Evaluation, append_metrics, begin_metrics, evaluate
from .objectives.base import Loss
from .objectives.registry import make_objective
from .scalars import Scalars
from .trainer import Stream, Trainer
from .vectors import Source

METRICS, EVALUATIONS = "metrics.csv", "evaluations.csv"


@final
class Running:
    """A run begun, or gone on with where it was stopped: `take` a step, until `done`; then
    `finish`.

    Vectors come from `stream`, already multiplied by their scale where `scaled`; `held_out`
    gives those to evaluate on, and reads them from the store by default. Where several
    processes train together, all of them do all of this, and the first one writes.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        run: Path,
        device: torch.device,
        stream: Stream,
        *,
        scaled: bool = False,
        held_out: Callable[[], Iterable[Float[Tensor, "n d"]]] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        began = time.monotonic()
        self.config, self.run, self._device = config, run, device
        self._source, self._ranks = source, ranks
        self._held_out_rows = held_out or (lambda: source.once(config, device))
        self._scale = source.scale()
        objective = make_objective(config, source.width, source.joint, source.group)
        scale = None if scaled else self._scale
        self.trainer = Trainer(config, objective, stream, scale, device, ranks)
        seconds = 0.0
        if ranks.agreed((run / STATE).exists()):
            seconds = self.trainer.restore(*read_tensors(run / STATE))
        self._began = began - seconds
        self._kept = self.trainer.step
        self._scalars: Scalars | None = None
        ranks.wait()  # all have read before anything is written
        if ranks.first:
            self._begin_files()

    def _begin_files(self) -> None:
        """Make the files ready for the steps to come."""
        config, run, step = self.config, self.run, self.trainer.step
        if step:
            note(f"going on with {run} from step {step}.")
        write_config(config, self._source, run, self.trainer.sae)
        begin_metrics(run / METRICS, step)
        if config.eval_every:
            begin_metrics(run / EVALUATIONS, step, EVALUATION_COLUMNS)
        if config.tensorboard:
            self._scalars = Scalars(run, step)

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.trainer.step >= self.config.steps

    def take(self, given: Loss | None = None) -> dict[str, int | float]:
        """Take a step, write what is due after it, and give the figures, where these are due.

        With a loss that has gone backward already, only the second half of the step is left.

        Raises ConfigError where training has come apart; such a state is never written.
        """
        config, trainer = self.config, self.trainer
        lr = trainer.rate()
        if given is None:
            x_ND, loss = trainer.advance()
        else:
            x_ND, loss = trainer.next(), given
            trainer.update(x_ND, loss)
        asked = [self._every(n) for n in (config.log_every, config.checkpoint_every)]
        if x_ND.device.type == "cpu" or any(asked) or self._every(config.eval_every):
            bad = trainer.first_bad()  # before anything is written
            if bad is not None:
                diverged(self._source.store, self._source.sites, bad, self._kept, config.lr)
        figures: dict[str, int | float] = {}
        if self._every(config.log_every):
            figures = trainer.figures(x_ND, loss) | {"lr": lr}
            if self._ranks.first:
                append_metrics(self.run / METRICS, figures)
            if self._scalars:
                self._scalars.add("train", figures)
        if self._ranks.first and self._every(config.eval_every):
            _, held = self._held_out()
            at: dict[str, int | float] = {"step": trainer.step, "vectors": trainer.vectors}
            told = at | {"fvu": held.fvu, "l0": held.l0}
            append_metrics(self.run / EVALUATIONS, told, EVALUATION_COLUMNS)
            if self._scalars:
                self._scalars.add("held_out", told)
        if self._every(config.checkpoint_every):
            state = trainer.state(time.monotonic() - self._began)
            if self._ranks.first:
                write_tensors(self.run / STATE, *state)
            if self._scalars:
                self._scalars.flush()
            self._kept = trainer.step
        return figures

    def finish(self) -> None:
        """Write the dictionary for raw vectors, and its figures on held-out ones."""
        if not self._ranks.first:
            return
        config, source = self.config, self._source
        dictionary, held = self._held_out()
        trained = (config.steps, self.trainer.vectors, self.trainer.dead_share())
        seen = None
        if source.group:  # of orbits there are few: what was learned by heart counts
            rows = source.once(config, self._device, part="train")
            seen = evaluate(dictionary, rows, config.eval_rows).fvu
        write_result(config, source, self.run, self._began, dictionary, held, trained, seen)
        if self._scalars:
            self._scalars.close()

    def _every(self, steps: int) -> bool:
        return bool(steps) and (self.done or self.trainer.step % steps == 0)

    def _held_out(self) -> tuple[Stored, Evaluation]:
        dictionary = folded(self.trainer.sae, self._scale)
        return dictionary, evaluate(dictionary, self._held_out_rows(), self.config.eval_rows)


def write_config(config: TrainConfig, source: Source, run: Path, dictionary: Dictionary) -> None:
    """config.json: the config, and what it was asked of, with no absolute path."""
    store, beside = source.store, source.beside
    told = {
        **asdict(config),
        "home": "",
        "store": store.name,
        "store_path": _path_from(run, store),
        "beside": beside.name if beside else "",
        "beside_path": _path_from(run, beside) if beside else "",
        "site": source.name,
        "sites": source.blocks,
        "scales": source.scales(),
        "group": asdict(source.group) if source.group else None,
        "width": source.width,
        "latents": dictionary.latents,
        "subject": store.spec["subject"],
        "dictionary": dictionary.plain().description(),
    }
    write_json(run / CONFIG, told)


def _path_from(run: Path, store: Store) -> str:
    return store.location if SCHEME in store.location else os.path.relpath(store.path, run)


def write_result(
    config: TrainConfig,
    source: Source,
    run: Path,
    began: float,
    dictionary: Stored,
    held: Evaluation,
    trained: tuple[int, int, float],
    fvu_train: float | None = None,
) -> None:
    """The dictionary, and last of all result.json: the run is finished."""
    write_config(config, source, run, dictionary)
    save_dictionary(run, dictionary, read_json(run / CONFIG), held.frequency_S)
    steps, vectors, dead = trained
    write_json(
        run / RESULT,
        {
            "store": source.store.name,
            "site": source.name,
            "fvu": held.fvu,
            "fvu_train": fvu_train,
            "l0": held.l0,
            "dead": dead,
            "parameters": sum(p.numel() for p in dictionary.parameters()),
            "steps": steps,
            "vectors": vectors,
            "eval_rows": held.rows,
            "seconds": round(time.monotonic() - began, 3),
        },
    )
