"""A run in training: its steps, and the files that they write.

`train` drives one run, a sweep many over the same vectors.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from tendril.data.cli import note
from tendril.data.errors import RunDamagedError
from tendril.data.home import SCHEME
from tendril.data.store.atomic import digest_of, write_whole
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import (
    CONFIG,
    DICTIONARY,
    LATENTS,
    STATE,
    read_figures,
    read_json,
    read_tensors,
    save_dictionary,
    write_figures,
    write_json,
    write_tensors,
)
from tendril.models.dictionaries.folding import folded
from tendril.models.dictionaries.sae import SAE, Dictionary, Stored

from .checks import (
    diverged,
    warnings_of_held_out,
    warnings_of_mean,
    warnings_of_passes,
    warnings_of_result,
)
from .config import BASELINES, WANDB, TrainConfig, fields_of, run_label
from .metrics import EVALUATION_COLUMNS, Evaluation, append_metrics, begin_metrics, evaluate
from .objectives.base import Loss, make_objective
from .outliers import IsOutlier, used_norms
from .trainer import ALONE, Ranks, Stream, Trainer
from .vectors import Source

if TYPE_CHECKING:
    from .loggers import Loggers

METRICS, EVALUATIONS = "metrics.csv", "evaluations.csv"
FILES = (CONFIG, METRICS, EVALUATIONS, DICTIONARY, LATENTS, STATE)
# fields about one command, not about the run
NOT_KEPT = ("home", "dry_run", "overwrite", "wandb", *WANDB)


@final
class Running:
    """A run that is begun, or continued after a stop: `take` a step, until `done`; then `finish`.

    Vectors come from `stream`, already centred and scaled if `scaled`. `held_out` gives the vectors
    to evaluate on; by default they are read from the store. `lost` are loggers that have failed,
    shared by the runs of a sweep. If several processes train together,
    all of them call all of this, and the first one writes.
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
        lost: set[str] | None = None,
    ) -> None:
        began = time.monotonic()
        self.config, self.run, self._device = config, run, device
        self._source, self._ranks = source, ranks
        self._held_out_rows = held_out or (lambda: source.once(config, device))
        self._scale, self._centre = source.scale(), source.centre()
        objective = make_objective(config, source.width, source.joint, source.group)
        scale, centre = (None, None) if scaled else (self._scale, self._centre)
        self.trainer = Trainer(config, objective, stream, scale, device, ranks, centre=centre)
        seconds = 0.0
        if ranks.agreed((run / STATE).exists()):
            tensors, numbers = read_tensors(run / STATE)
            check_state_of(run, numbers)
            seconds = self.trainer.restore(tensors, numbers, run / STATE)
            if ranks.first:
                restore_curves(run, numbers)
        self._began = began - seconds
        self._kept = self.trainer.step
        self._loggers: Loggers | None = None
        ranks.wait()  # all have read before anything is written
        if ranks.first:
            self._begin_files()
            self._loggers = loggers_of(config, run, self.trainer.step, lost)

    def _begin_files(self) -> None:
        """Prepare the files for the steps to come."""
        config, run, step = self.config, self.run, self.trainer.step
        if step:
            note(f"continuing {run} from step {step}.")
        write_config(config, self._source, run, self.trainer.sae)
        begin_metrics(run / METRICS, step)
        if config.eval_every:
            begin_metrics(run / EVALUATIONS, step, EVALUATION_COLUMNS)

    @property
    def done(self) -> bool:
        """True if all steps are taken."""
        return self.trainer.step >= self.config.steps

    def take(self, given: Loss | None = None) -> dict[str, int | float]:
        """Take a step, write what is due after it, and return the figures, if they are due.

        For a `given` loss, whose backward pass is done, only the second half of the step is left.

        Raises ConfigError if training has diverged; such a state is never written.
        """
        config, trainer = self.config, self.trainer
        lr = trainer.rate()
        if given is None:
            x_ND, loss = trainer.advance()
        else:
            x_ND, loss = trainer.next(), given
            trainer.update(x_ND, loss)
        due = [self._every(n) for n in (config.log_every, config.checkpoint_every)]
        if x_ND.device.type == "cpu" or any(due) or self._every(config.eval_every):
            self._refuse_diverged()  # before anything is written
        figures: dict[str, int | float] = {}
        if self._every(config.log_every):
            figures = trainer.figures(x_ND, loss) | {"lr": lr}
            if self._ranks.first:
                append_metrics(self.run / METRICS, figures)
            if self._loggers:
                self._loggers.add("train", figures)
        if self._ranks.first and self._every(config.eval_every):
            self._write_evaluation()
        if self._every(config.checkpoint_every):
            self.checkpoint()
        return figures

    def checkpoint(self) -> None:
        """Write the state after the last step, from which the same command continues."""
        tensors, numbers = self.trainer.state(time.monotonic() - self._began)
        if self._ranks.first:
            write_tensors(self.run / STATE, tensors, numbers | about_run(self.run))
        if self._loggers:
            self._loggers.flush()
        self._kept = self.trainer.step

    def _refuse_diverged(self) -> None:
        bad = self.trainer.first_bad()
        if bad is not None:
            self.leave()
            source = self._source
            diverged(source.store, source.sites, bad, self._kept, self.config.lr)

    def _write_evaluation(self) -> None:
        _, _, held = self._evaluated()
        at: dict[str, int | float] = {"step": self.trainer.step, "vectors": self.trainer.vectors}
        figures = at | {"fvu": held.fvu, "l0": held.l0}
        append_metrics(self.run / EVALUATIONS, figures, EVALUATION_COLUMNS)
        if self._loggers:
            self._loggers.add("held_out", figures)

    def finish(self) -> None:
        """Write the dictionary for raw vectors, and its figures on held-out vectors."""
        if not self._ranks.first:
            return
        config, source = self.config, self._source
        dictionary, judged, held = self._evaluated(source.outlier_test)
        trained = (config.steps, self.trainer.vectors, self.trainer.dead_fraction())
        fvu_train = None
        if source.group:  # orbits are few, so overfitting matters
            rows = source.once(config, self._device, part="train")
            fvu_train = evaluate(judged, rows, config.eval_rows).fvu
        write_result(config, source, self.run, self._began, dictionary, held, trained, fvu_train)
        if self._loggers:
            self._loggers.finish(read_figures(self.run))

    def leave(self) -> None:
        """Close the loggers of a run that stops before its end."""
        if self._loggers:
            self._loggers.finish()

    def _every(self, steps: int) -> bool:
        return bool(steps) and (self.done or self.trainer.step % steps == 0)

    def _evaluated(self, is_outlier: IsOutlier | None = None) -> tuple[Stored, Stored, Evaluation]:
        """The dictionary for raw vectors, the one that is judged, and its figures.

        They differ for random sources of a group: judged is what one element tells of all.
        """
        sae, blocks = self.trainer.sae, self._source.joint
        dictionary = judged = folded(sae, self._scale, self._centre)
        if self._source.left and self._source.left.fold:
            dictionary = judged = self._source.left.fold(dictionary)
        if self.config.sources == "random" and self._source.group and isinstance(sae, SAE):
            from tendril.models.dictionaries.crosscoder import reading_first  # most have one site

            judged = folded(reading_first(sae, blocks), self._scale, self._centre)
        most = self.config.eval_rows
        return dictionary, judged, evaluate(judged, self._held_out_rows(), most, is_outlier)


def training_vectors(config: TrainConfig, source: Source) -> float:
    """About how many vectors there are to train on."""
    each = len(source.group) if source.group and config.orbits == "each" else 1
    store, rows = source.store, source.store.moments(source.sites[0]).count
    if source.alters and config.norm_outliers == "drop":
        rule, times = config.norm_outliers, config.outlier_times
        rows = len(used_norms(store, source.sites[0], source.sites, rule, times))
    return rows * (1 - config.held_out) * each


def data_warnings(config: TrainConfig, source: Source) -> list[str]:
    """What is known before training to make its figures say little, and what to do about it."""
    found = [*source.warnings, *warnings_of_held_out(source.store, config.held_out)]
    if config.objective in BASELINES:
        return found
    bias = config.bias if "bias" in fields_of(config.objective) else ""
    for name, (store, site) in source.parts.items():
        found += warnings_of_mean(source.channels[name], f"{site} in {store.name}", bias)
    vectors = training_vectors(config, source)
    return found + warnings_of_passes(config.steps, config.batch_size, vectors)


def loggers_of(
    config: TrainConfig, run: Path, step: int, lost: set[str] | None = None
) -> "Loggers | None":
    """The loggers that a config asks for, if there are any; config.json is written before."""
    if not (config.tensorboard or config.wandb):
        return None
    from .loggers import Loggers

    return Loggers(config, run, step, lost)


def about_run(run: Path) -> dict[str, Any]:
    """What a state says of its run: the name, and size and digest of each file of curves so far."""
    paths = [run / name for name in (METRICS, EVALUATIONS) if (run / name).is_file()]
    return {"run": run.name, "files": {p.name: [p.stat().st_size, digest_of(p)] for p in paths}}


def check_state_of(run: Path, numbers: Mapping[str, Any]) -> None:
    """Raise RunDamagedError for the state of another run."""
    if numbers.get("run", run.name) != run.name:
        raise RunDamagedError(
            f"{run / STATE} must be the state of {run.name}; it is that of {numbers['run']}. "
            "Remove it, or start again with --overwrite."
        )
    if "files" not in numbers:
        note(f"{run / STATE} is of an earlier version, without a digest: not checked for damage.")


def restore_curves(run: Path, numbers: Mapping[str, Any]) -> None:
    """Cut the files of curves back to what they held when a state was written.

    Raises RunDamagedError if that has changed.
    """
    for name, (size, digest) in numbers.get("files", {}).items():
        path = run / name
        content = path.read_bytes()[:size] if path.is_file() else b""
        if xxhash.xxh3_128(content).hexdigest() != digest:
            raise RunDamagedError(
                f"{path} has changed since the checkpoint of step {numbers['step']}: its digest "
                "differs. Restore the file, or start again with --overwrite."
            )
        if path.stat().st_size != size:
            write_whole(path, content)


def write_config(config: TrainConfig, source: Source, run: Path, dictionary: Dictionary) -> None:
    """Write config.json: the config, the store and the site, without absolute paths."""
    store, paired = source.store, source.paired
    written = {
        **{name: value for name, value in asdict(config).items() if name not in NOT_KEPT},
        "store": store.name,
        "store_path": _path_from(run, store),
        "paired_store": paired.name if paired else "",
        "paired_store_path": _path_from(run, paired) if paired else "",
        "paired_sites": list(source.paired_sites),
        "site": source.name,
        "sites": source.blocks,
        "grid": list(store.grid(source.sites[0])),
        "scales": source.scales(),
        **({"centred": True} if source.centred else {}),
        "group": asdict(source.group) if source.group else None,
        "width": source.width,
        "latents": dictionary.latents,
        "subject": store.spec["subject"],
        "dictionary": dictionary.plain().description(),
    }
    write_json(run / CONFIG, {"label": run_label(written), **written})


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
    """Write the dictionary, and last result.json, which marks the run as finished. `trained` is the
    number of steps, of vectors, and the fraction of dead latents."""
    write_config(config, source, run, dictionary)
    written = read_json(run / CONFIG)
    save_dictionary(run, dictionary, written, held.frequency_S)
    steps, vectors, dead = trained
    warnings = data_warnings(config, source)
    warnings += warnings_of_result(held.fvu, dead, held.fvu_without_outliers)
    write_figures(
        run,
        {
            "label": written["label"],
            "store": source.store.name,
            "site": source.name,
            "fvu": held.fvu,
            "fvu_without_outliers": held.fvu_without_outliers,
            "fvu_train": fvu_train,
            "l0": held.l0,
            "dead": dead,
            "parameters": sum(p.numel() for p in dictionary.parameters()),
            "steps": steps,
            "vectors": vectors,
            "eval_rows": held.rows,
            "seconds": round(time.monotonic() - began, 3),
            **({"warnings": list(dict.fromkeys(warnings))} if warnings else {}),
        },
        FILES,
    )
