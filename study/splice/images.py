"""Splicing in a vision network: what it still answers about images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from tendril.data.cli import note, progress_bar
from tendril.data.errors import (
    ConfigError,
    UnreadableInputError,
    UnreadableInputsError,
)
from tendril.data.inputs.images import ImageSource
from tendril.data.store.provenance import same_identity
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.sites.splice import (
    CLEAN,
    MEAN,
    ZERO,
    Reconstruction,
    ablating,
    site_mean,
    splice_answers,
)
from tendril.models.subjects.subject import Subject, site_modules

from ..core.config import outlier_remark
from ..core.image_labels import image_labels
from ..core.report import file_digest
from ..core.stores import common_site, dictionary_digests, training_warnings
from ..core.vision_inputs import VisionInputs, find_vision_inputs, token_remark
from .config import SpliceConfig
from .findings import Findings, best, image_figures
from .held_out import JudgedImages, judged_images

OWN = "the subject's own first answers"


@final
@dataclass(frozen=True)
class SplicedImages:
    """Runs of one site of a vision network, and the images to judge them on.

    `labels` are the images' classes where they are known.
    """

    runs: tuple[Path, ...]
    found: VisionInputs
    judged: JudgedImages
    labels: Sequence[int] | None

    @property
    def images(self) -> ImageSource:
        """The images."""
        return self.judged.images

    @property
    def subject(self) -> Subject:
        """The vision network."""
        return self.found.subject

    @property
    def subject_name(self) -> str:
        """The name of the subject, for titles."""
        return self.subject.name

    @property
    def site(self) -> str:
        """The site that is replaced."""
        return self.found.site

    def identity(self, config: SpliceConfig) -> dict[str, Any]:
        """What determines findings besides the settings."""
        return {
            "subject": dict(self.subject.identity),
            "site": self.site,
            "dictionaries": dictionary_digests(self.runs),
            "images": self.images.identity,
            "source": self.judged.source,
            "labels": file_digest(Path(config.labels)) if config.labels else None,
        }

    def remarks(self) -> list[str]:
        """Tokens in place of a map, norm outliers that the runs dropped or capped, and what
        training has warned of."""
        return [
            *([token_remark(self.found)] if self.found.tokens else []),
            *outlier_remark(read_config(run) for run in self.runs),
            *training_warnings(self.runs),
        ]

    def estimate(self) -> dict[str, Any]:
        """Counts for `--dry-run`."""
        return {"images": len(self.images), "passes": (5 + len(self.runs)) * len(self.images)}

    def compute(self, config: SpliceConfig, device: torch.device) -> Findings:
        """Run the images through the network in each condition."""
        if self.labels is None:
            note("no --labels: the subject's own first answer to the true site counts as right.")
        module = self.subject.module.to(device)
        names = site_modules(self.subject, [self.site])[self.site]
        batches = ImageBatches(self.images, self.subject, config.batch_size, device, self.labels)
        mean_D = site_mean(module, names, (x for x, _ in batches.shown("mean of the site")))
        dictionaries = {run.resolve().name: load_sae(run).to(device) for run in self.runs}
        substitutes = {name: Reconstruction(one) for name, one in dictionaries.items()}
        sums = splice_answers(
            module,
            names,
            {**substitutes, ZERO: ablating(), MEAN: ablating(mean_D)},
            batches.shown("splice"),
            self.subject.logits,
        )
        figures = image_figures(sums)
        unreadable = {"unreadable": batches.unreadable} if batches.unreadable else {}
        return {
            "subject": self.subject.name,
            "site": self.site,
            "images": len(self.images) - len(batches.unreadable),
            **unreadable,
            "answers": sums[CLEAN].count,
            "source": self.judged.source,
            "part": self.judged.part,
            "labels": OWN if self.labels is None else "file",
            **best(figures),
            **figures,
        }


def find_images(config: SpliceConfig, runs: Sequence[Path]) -> SplicedImages:
    """Find subject, site, store and images of the runs, and check that they belong together.

    Raises ConfigError where sites or subjects differ, or where the store is gone and no --inputs
    are given, and what `find_vision_inputs`, `open_images` and `image_labels` raise.
    """
    common_site(runs)
    found = [find_vision_inputs(config, str(run), images=False) for run in runs]
    first = found[0]
    if not all(same_identity(first.subject.identity, one.subject.identity) for one in found):
        listed = ", ".join(f"{one.subject.name} ({one.run_name})" for one in found)
        raise ConfigError(
            f"the runs must be of one subject; got {listed}. Study each subject by itself."
        )
    judged = judged_images(config, found)
    labels = image_labels(Path(config.labels), judged.images) if config.labels else None
    return SplicedImages(tuple(runs), first, judged, labels)


@final
class ImageBatches:
    """Batches of images as the subject takes them, with their classes where they are known.

    Images that cannot be read are left out; `unreadable` maps their names to the reasons.
    """

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
        self.unreadable: dict[str, str] = {}

    def shown(self, label: str) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All batches once, with a progress bar. Raises UnreadableInputsError if no image can be
        read."""
        with progress_bar(total=len(self._images), desc=label, unit=" images") as bar:
            for start in range(0, len(self._images), self._size):
                numbers = range(start, min(start + self._size, len(self._images)))
                loaded = self._loaded(numbers)
                if loaded:
                    yield self._batch(loaded)
                bar.update(len(numbers))
        if len(self.unreadable) == len(self._images):
            name, reason = next(iter(self.unreadable.items()))
            raise UnreadableInputsError(
                f"none of the {len(self._images)} images in {self._images.origin} can be read "
                f"({name}: {reason}). Give --inputs a folder of readable images."
            )

    def _loaded(self, numbers: range) -> dict[int, Tensor]:
        loaded = {}
        for i in numbers:
            try:
                loaded[i] = torch.from_numpy(self._images.given(i, self._subject.input_size))
            except UnreadableInputError as error:
                name = self._images.name(i)
                if name not in self.unreadable:
                    note(f"the image {name} cannot be read ({error}); it is left out.")
                self.unreadable[name] = str(error)
        return loaded

    def _batch(self, numbers: dict[int, Tensor]) -> tuple[Tensor, Tensor | None]:
        images = list(numbers.values())
        if any(image.is_floating_point() for image in images):  # tensors that are no pictures
            images = [i if i.is_floating_point() else i / 255 for i in images]
        rgb_BCHW = torch.stack(images).permute(0, 3, 1, 2).to(self._device)
        rgb_BCHW = rgb_BCHW if rgb_BCHW.is_floating_point() else rgb_BCHW.float() / 255
        labels = self._labels
        known = None if labels is None else torch.tensor([labels[i] for i in numbers])
        return self._subject.preprocess(rgb_BCHW), known
