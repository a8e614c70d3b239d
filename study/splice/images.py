"""The study of what is lost when a site is replaced by its reconstruction."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from tqdm import tqdm

from tendril.data.cli import note
from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.home import find_run
from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.provenance import located
from tendril.data.store.tables import columns
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.sites.splice import (
    CLEAN,
    Answers,
    Reconstruction,
    ablating,
    recovered,
    site_mean,
    splice_answers,
)
from tendril.models.subjects.subject import Subject, site_modules

from ..core.vision_inputs import Sources, find_sources
from ..curves.config import CurvesConfig, SpliceConfig

ZERO, MEAN = "zero", "mean"
COLUMNS = ("top1", "top5", "cross_entropy")


def study_splice(config: SpliceConfig) -> dict[str, Any]:
    """Run the images through the subject with the site as it is, reconstructed by each run,
    zero, and at its mean; print a table, and return all figures. Runs of a language model are
    judged on text (`study_language_splice`).

    Raises children of TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    if any(of_text(find_run(run, config.home)) for run in config.run):
        from .text import study_language_splice  # takes seconds to import

        return study_language_splice(config)
    device = resolve_device(config.device)
    keep_freed_memory()
    folders = [find_run(run, config.home) for run in config.run]
    sources = _sources(config, folders)
    images = _images(config, sources)
    labels = image_labels(Path(config.labels), images) if config.labels else None
    if labels is None:
        note("no --labels: the subject's own first answer to the true site counts as right.")
    subject = sources.subject
    module = subject.module.to(device)
    names = site_modules(subject, [sources.site])[sources.site]
    batches = ImageBatches(images, subject, config.batch_size, device, labels)
    mean_D = site_mean(module, names, (x for x, _ in batches.shown("mean of the site")))
    dictionaries = {f.resolve().name: load_sae(f).to(device) for f in folders}
    substitutes = {name: Reconstruction(one) for name, one in dictionaries.items()}
    sums = splice_answers(
        module,
        names,
        {**substitutes, ZERO: ablating(), MEAN: ablating(mean_D)},
        batches.shown("splice"),
        subject.logits,
    )
    figures = splice_figures(sums)
    print(splice_table(figures), flush=True)
    return {
        "subject": subject.name,
        "site": sources.site,
        "images": sums[CLEAN].count,
        "labels": "file" if labels is not None else "the subject's own first answers",
        **figures,
        "seconds": round(time.monotonic() - began, 3),
    }


def splice_figures(sums: Mapping[str, Answers]) -> dict[str, Any]:
    """Figures of each condition, and what each run recovers of what each ablation loses.

    FVU is that of all positions of these images: sum ||x - x_hat||^2 / sum ||x - mean||^2.
    """
    conditions = {name: answers.figures() for name, answers in sums.items()}
    clean = conditions[CLEAN]
    runs: dict[str, Any] = {}
    for name in (n for n in sums if n not in (CLEAN, ZERO, MEAN)):
        found: dict[str, Any] = {**conditions[name], "fvu": sums[name].missed / sums[MEAN].missed}
        for against in (ZERO, MEAN):
            ablated = conditions[against]
            found[f"recovered_against_{against}"] = {
                column: recovered(clean[column], conditions[name][column], ablated[column])
                for column in COLUMNS
            }
        runs[name] = found
    return {CLEAN: clean, ZERO: conditions[ZERO], MEAN: conditions[MEAN], "runs": runs}


def splice_table(figures: Mapping[str, Any]) -> str:
    """The figures for a person: a line a condition, recovered shares beside each run."""
    head = ("site", "top-1", "top-5", "loss", "recovered: top-1", "loss", "of mean: top-1", "loss",
            "FVU")  # fmt: skip
    rows: list[tuple[str, ...]] = [head]
    for name in (CLEAN, ZERO, MEAN):
        rows.append((name, *_told(figures[name]), *[""] * 5))
    for name, run in figures["runs"].items():
        shares = [
            _number(run[f"recovered_against_{against}"][column])
            for against in (ZERO, MEAN)
            for column in ("top1", "cross_entropy")
        ]
        rows.append((name, *_told(run), *shares, _number(run["fvu"])))
    return columns(rows)


@final
class ImageBatches:
    """Batches of images as the subject takes them, with their classes where they are known."""

    def __init__(
        self,
        images: ImageSource,
        subject: Subject,
        size: int,
        device: torch.device,
        labels: Sequence[int] | None,
    ) -> None:
        self._images, self._subject, self._size = images, subject, size
        self._device, self._labels = device, labels

    def shown(self, what: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All batches once, with a bar."""
        with tqdm(total=len(self._images), desc=what, unit=" images") as bar:
            for start in range(0, len(self._images), self._size):
                numbers = range(start, min(start + self._size, len(self._images)))
                yield self._batch(numbers)
                bar.update(len(numbers))

    def _batch(self, numbers: range) -> tuple[Tensor, Tensor | None]:
        size = self._subject.input_size
        pixels = [torch.from_numpy(self._images.load(i, size)) for i in numbers]
        rgb_BCHW = torch.stack(pixels).permute(0, 3, 1, 2).to(self._device).float() / 255
        labels = self._labels
        known = None if labels is None else torch.tensor([labels[i] for i in numbers])
        return self._subject.preprocess(rgb_BCHW), known


def image_labels(path: Path, images: ImageSource) -> list[int]:
    """The class of each image: the number of the line that begins with the id that the image's
    name, or else the name of a folder above it, begins with.

    Raises InputsNotFoundError for a file that is not there, ConfigError for an image without
    a class.
    """
    if not path.is_file():
        raise InputsNotFoundError(f"--labels {path} is no file; pass one with a class a line.")
    classes: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines()):
        classes.setdefault((line.split() or [""])[0], number)
    labels = []
    for index in range(len(images)):
        parts = reversed(Path(images.name(index)).parts)
        ids = [re.split(r"[_.\s]", part)[0] for part in parts]
        found = next((classes[name] for name in ids if name in classes), None)
        if found is None:
            raise ConfigError(
                f"no line of {path} begins with the id of image {images.name(index)!r} "
                f"(looked for {' and '.join(repr(name) for name in ids)}); pass the class list of "
                "these images, or leave --labels out."
            )
        labels.append(found)
    return labels


def of_text(run: Path) -> bool:
    """Whether a run was trained on a language model."""
    return "tokenizer" in read_config(run).get("subject", {})


def one_site(trained: Mapping[Path, Mapping[str, Any]]) -> str:
    """The site of some runs, by their configs. Raises ConfigError where sites differ, or a
    dictionary is of several."""
    sites = {folder.name: str(one["site"]) for folder, one in trained.items()}
    for folder, one in trained.items():
        if len(one.get("sites") or ()) > 1:
            raise ConfigError(
                f"{folder.name} is a crosscoder of the sites {', '.join(one['sites'])}, and splice "
                "replaces one site; choose a dictionary of one site."
            )
    if len(set(sites.values())) > 1:
        raise ConfigError(
            "the runs of one splice are of one site, and these are of "
            f"{', '.join(f'{site} ({name})' for name, site in sites.items())}; splice each apart."
        )
    return next(iter(sites.values()))


def _sources(config: SpliceConfig, folders: Sequence[Path]) -> Sources:
    """Subject, site and store of the runs. Raises ConfigError where sites differ."""
    one_site({folder: read_config(folder) for folder in folders})
    found = [
        find_sources(
            CurvesConfig(
                run=str(folder),
                subject=config.subject,
                weights=config.weights,
                normalisation=config.normalisation,
                store=config.store,
                home=config.home,
                examples=0,
            )
        )
        for folder in folders
    ]
    if len({str(sorted(one.subject.identity.items())) for one in found}) > 1:
        raise ConfigError("the runs of one splice are of one subject, and these are of several.")
    return found[0]


def _images(config: SpliceConfig, sources: Sources) -> ImageSource:
    """The images asked for, or those of the store."""
    if config.inputs:
        return open_images(config.inputs, config.limit)
    store = sources.store
    if store is None:
        raise ConfigError("splice wants images, and the run's store is gone; pass --inputs.")
    count = int(store.spec["inputs"]["count"])
    return open_images(located(store.path, store.origin.get("inputs", "")), config.limit or count)


def _told(figures: Mapping[str, float]) -> tuple[str, str, str]:
    return f"{figures['top1']:.3f}", f"{figures['top5']:.3f}", f"{figures['cross_entropy']:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
