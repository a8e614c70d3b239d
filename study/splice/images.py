"""Splicing in a vision network: what it still answers about images."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.inputs.images import ImageSource
from tendril.data.store.provenance import same_identity
from tendril.models.attacks import Attack
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
from ..core.image_batches import ImageBatches
from ..core.image_labels import INPUTS, labels_of
from ..core.report import file_digest
from ..core.stores import common_site, dictionary_digests, training_warnings
from ..core.vision_inputs import VisionInputs, find_vision_inputs, token_remark
from .attacked import attack_figures, chosen_attack
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
    attack: Attack | None = None

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
            "labels": self._labels_identity(config.labels),
        }

    def _labels_identity(self, labels: str) -> str | None:
        if labels == INPUTS:
            return sha256(repr(self.labels).encode()).hexdigest()
        return file_digest(Path(labels)) if labels else None

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
        passes = 5 + len(self.runs)
        if self.attack:  # of each run and its controls: two attacks, each step two passes and back
            passes += 4 * (self.attack.steps + 2) * (1 + 6 * len(self.runs))
        return {"images": len(self.images), "passes": passes * len(self.images)}

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
        if self.attack is not None:
            fvu = {name: run["fvu"] for name, run in figures["runs"].items()}
            figures["attack"] = attack_figures(
                self.attack, self.subject, self.site, dictionaries, fvu, batches
            )
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
    labels = labels_of(config.labels, judged.images)
    attack = chosen_attack(config, 3 * first.subject.input_size**2)
    return SplicedImages(tuple(runs), first, judged, labels, attack)
