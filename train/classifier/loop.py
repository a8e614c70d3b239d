"""The training of a classifier: images -> a network in the folder of its run."""

import hashlib
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, final

import torch

from tendril.data.cli import Outcome, command_line, note, progress_bar, scalars
from tendril.data.device import cpu_threads, keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import NETWORK, runs_folder
from tendril.data.store.atomic import check_not_link
from tendril.data.store.spec import canonical_json, slug
from tendril.models.dictionaries.checkpoint import (
    CONFIG,
    RESULT,
    STATE,
    check_files,
    read_figures,
    read_tensors,
    write_figures,
    write_json,
    write_tensors,
)
from tendril.models.epsilon import check_epsilon
from tendril.models.subjects.classifiers import ClassifierSpec, build_classifier
from tendril.models.subjects.subject import weights_digest

from ..loop import only_trainer, signals_wait_for_a_step
from ..metrics import append_metrics, begin_metrics
from ..run import METRICS, about_run, check_state_of, restore_curves
from .config import ClassifierConfig
from .pixels import Pictures, load_pictures
from .trainer import Trainer, test

COLUMNS = ("step", "epoch", "images", "loss", "accuracy", "lr")
FILES = (CONFIG, METRICS, NETWORK.marker, STATE)
NOT_KEPT = ("home", "overwrite")


@final
@dataclass(frozen=True)
class ClassifierResult:
    """A finished run. `figures` are those of result.json."""

    run: Path
    figures: dict[str, Any]
    reused: bool = False

    def outcome(self, home: str = "") -> Outcome:
        """What the command prints."""
        figures = self.figures
        attack = ""
        if figures["accuracy_attacked"] is not None:
            attack = (
                f", {100 * figures['accuracy_attacked']:.2f} % under PGD-{figures['test_steps']} "
                f"at {figures['norm']} epsilon {figures['test_epsilon']:.4g} "
                f"({figures['attacked']:,} images)"
            )
        verb = "Already there:" if self.reused else "Trained"
        words = ["tendril", "harvest", "images", "--subject", self.run.name, "--inputs"]
        words += [
            figures["inputs"],
            "--sites",
            figures["site"],
            *(["--home", home] if home else []),
        ]
        return Outcome(
            scalars({"run": str(self.run), **figures, "reused": self.reused}),
            f"{verb} {figures['label']}: {100 * figures['accuracy']:.2f} % of "
            f"{figures['images']:,} test images right{attack}, in "
            f"{figures['seconds'] / 60:.1f} min; {self.run}",
            " ".join(words),
        )


def train_classifier(config: ClassifierConfig) -> ClassifierResult:
    """Train a classifier, or continue a stopped run, or return a finished one.

    The run's folder is `<home>/runs/<name>-<12 hex of SHA-256 of what determines it>`: the config
    and the training images. On one device and thread a stopped run ends with the same bits.
    Raises ConfigError, and what `open_images` raises.
    """
    config.check()
    keep_freed_memory()
    device = resolve_device(config.device)
    data = load_pictures(
        config.inputs,
        limit=config.limit,
        size=config.side,
        channels=config.channels,
        flag="--inputs",
        left_out=config.left_out,
    )
    check_epsilon(max(config.epsilon, config.tested), config.norm, data.pixels_NCHW[0].numel())
    run = run_folder(config, data)
    check_not_link(run)
    run.mkdir(parents=True, exist_ok=True)
    with only_trainer(run, overwrite=config.overwrite):
        if (run / RESULT).exists():
            note(f"{run} exists already.")
            return replace(read_result(run), reused=True)
        tested = _test_images(config, data)
        with cpu_threads(config.threads or torch.get_num_threads()):
            _train(config, data, tested, run, device)
    return read_result(run)


def run_folder(config: ClassifierConfig, data: Pictures) -> Path:
    """The folder of the run of this config on these images."""
    identity = config.identity() | {"kind": "classifier", "data": data.identity}
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    usual = f"{config.network}-{Path(data.origin).stem}"
    if config.left_out:
        usual += f"-without-{'-'.join(config.left_out)}"
    if config.attack != "none":
        usual += f"-{config.attack}-{config.norm}-{config.epsilon:.3g}"
    return runs_folder(config.home) / f"{slug(config.name or usual)}-{digest[:12]}"


def _test_images(config: ClassifierConfig, data: Pictures) -> Pictures:
    """The images to test on. Raises ConfigError if their classes are others."""
    channels = "grey" if data.pixels_NCHW.shape[1] == 1 else "rgb"
    found = load_pictures(
        config.test_inputs,
        limit=None,
        size=config.side,
        channels=channels,
        flag="--test-inputs",
        left_out=config.left_out,
    )
    if found.names != data.names:
        raise ConfigError(
            f"--test-inputs must have the classes of --inputs, {_listed(data.names)}; got "
            f"{_listed(found.names)}. Give the test images of the same data set."
        )
    return found


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:4])}{', ...' if names[4:] else ''} ({len(names)} in all)"


def _train(
    config: ClassifierConfig, data: Pictures, tested: Pictures, run: Path, device: torch.device
) -> None:
    mean, std = data.moments()
    spec = ClassifierSpec(
        config.network, config.width, len(data.names), config.side, len(mean), mean, std
    )
    trainer = Trainer(config, build_classifier(spec, config.seed), data, device)
    began = time.monotonic() - _restored(trainer, run)
    about = _write_config(config, data, spec, run, trainer)
    begin_metrics(run / METRICS, trainer.step, COLUMNS)

    def checkpoint() -> None:
        numbers = {"step": trainer.step, "seconds": time.monotonic() - began}
        write_tensors(run / STATE, trainer.state(), numbers | about_run(run))

    with (
        signals_wait_for_a_step() as stop_requested,
        progress_bar(total=trainer.steps, initial=trainer.step, desc=run.name, unit=" steps")
        if not trainer.done
        else nullcontext() as bar,
    ):
        while not trainer.done:
            if stop_requested():
                checkpoint()
                _stop(run, trainer.step)
            figures = trainer.take()
            if not figures["loss"] < 1e4:  # also NaN
                raise ConfigError(
                    f"training diverged at step {trainer.step:,}: the loss is {figures['loss']}. "
                    f"Lower --lr (now {config.lr:g})."
                )
            if trainer.step % config.log_every == 0 or trainer.done:
                append_metrics(run / METRICS, figures, COLUMNS)
            if config.checkpoint_every and (
                trainer.step % config.checkpoint_every == 0 or trainer.done
            ):
                checkpoint()
            if bar is not None:
                bar.set_postfix({"loss": f"{figures['loss']:.3g}"}, refresh=False)
                bar.update()
    _finish(config, trainer, tested, run, about, began)


def _finish(
    config: ClassifierConfig,
    trainer: Trainer,
    tested: Pictures,
    run: Path,
    about: dict[str, Any],
    began: float,
) -> None:
    """Write the network, and last result.json, which marks the run as finished."""
    seconds = time.monotonic() - began
    network = trainer.network.eval()
    found = test(config, network, tested)
    write_tensors(run / NETWORK.marker, network.state_dict())
    sites = [name for name, _ in network.named_modules() if name]
    write_figures(
        run,
        {
            "label": about["label"],
            "inputs": config.test_inputs,
            "site": "relu2" if "relu2" in sites else "layer3",
            "subject_digest": weights_digest(network),
            **asdict(found),
            "norm": config.norm,
            "test_epsilon": config.tested,
            "test_steps": config.test_steps,
            "parameters": sum(p.numel() for p in network.parameters()),
            "steps": trainer.steps,
            "epochs": config.epochs,
            "seconds": round(seconds, 1),
            "seconds_test": round(time.monotonic() - began - seconds, 1),
            "threads": torch.get_num_threads(),
        },
        FILES,
    )


def _restored(trainer: Trainer, run: Path) -> float:
    """Continue from a checkpoint, if there is one; the seconds that were spent before."""
    if not (run / STATE).exists():
        return 0.0
    tensors, numbers = read_tensors(run / STATE)
    check_state_of(run, numbers)
    restore_curves(run, numbers)
    trainer.restore(tensors, int(numbers["step"]))
    note(f"continuing {run} from step {trainer.step}.")
    return float(numbers["seconds"])


def _write_config(
    config: ClassifierConfig, data: Pictures, spec: ClassifierSpec, run: Path, trainer: Trainer
) -> dict[str, Any]:
    attack = ""
    if config.attack != "none":
        attack = f", {config.attack} {config.norm} {config.epsilon:.3g}"
    without = f", without {', '.join(config.left_out)}" if config.left_out else ""
    about = f"{config.network}, width {config.width}, {Path(data.origin).stem}{without}{attack}"
    written = {
        "label": about,
        "kind": "classifier",
        **{name: value for name, value in asdict(config).items() if name not in NOT_KEPT},
        "network": asdict(spec),
        "class_names": list(data.names),
        "data": data.identity,
        "images": len(data),
        "steps": trainer.steps,
        "command": command_line(["tendril", "train", "classifier"], config, ClassifierConfig()),
    }
    write_json(run / CONFIG, written)
    return written


def _stop(run: Path, step: int) -> NoReturn:
    note(f"{run}: checkpoint of step {step} written.")
    raise KeyboardInterrupt


def read_result(run: Path) -> ClassifierResult:
    """The result of a finished run. Raises RunDamagedError if a file has changed."""
    check_files(run)
    return ClassifierResult(run, dict(read_figures(run)))
