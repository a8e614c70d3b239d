"""Pass images through a network once, and score them by every detector."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import SubjectError
from tendril.data.inputs.images import ImageSource
from tendril.models.dictionaries import baselines
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.splice import BLOCK, splicing, to_vectors
from tendril.models.subjects.subject import Subject, site_modules

from ..core.image_batches import ImageBatches
from ..measures.outside_scores import (
    ClassMeans,
    Gaussians,
    Profiles,
    energy_score,
    neighbour_score,
    softmax_score,
)
from .config import OodConfig
from .findings import ENERGY, LATENTS, MAHALANOBIS, NEAREST, RANDOM, SOFTMAX, UNITS, Scores

SAMPLE = 65_536  # vectors whose mean is the bias of random directions


@final
@dataclass(frozen=True)
class Passed:
    """What a network makes of a batch: logits, vectors of the site [images, positions, D] and
    their mean."""

    logits_NC: Float[Tensor, "n c"]
    x_NPD: Float[Tensor, "n p d"]

    @property
    def mean_ND(self) -> Float[Tensor, "n d"]:
        """The mean over positions, in float32."""
        return self.x_NPD.float().mean(dim=1)


@final
class Detectors:
    """Everything that is fitted on images of training, and the scores of others."""

    def __init__(
        self,
        config: OodConfig,
        subject: Subject,
        site: str,
        dictionaries: Sequence[SAE],
        on: Sequence[int],
        device: torch.device,
    ) -> None:
        """`on` is the mean number of active latents of each dictionary, k of its random twin."""
        self._config, self._subject, self._device = config, subject, device
        self._names = site_modules(subject, [site])[site]
        self._latents = [one.to(device) for one in dictionaries]
        self._on = on
        self.unreadable = 0
        self.fitted = self.classes = 0

    @torch.inference_mode()
    def fit(self, images: ImageSource) -> None:
        """Fit profiles, means and covariances; the class of an image is the network's answer."""
        means: dict[tuple[str, int], ClassMeans] = {}
        kept_ND, answers = [], []
        self._random: list[SAE] = []
        for batch in self._passed(images, "fit"):
            if not self._random:
                self._random = self._random_twins(batch)
                self._signed = bool((batch.x_NPD < 0).any())
            answer_N = batch.logits_NC.argmax(dim=1).cpu()
            for key, z_NS in self._codes(batch):
                if key not in means:
                    means[key] = ClassMeans(batch.logits_NC.shape[1], z_NS.shape[1])
                means[key].add(answer_N, z_NS.cpu())
            kept_ND.append(batch.mean_ND.cpu())
            answers.append(answer_N)
        self._fitted_ND, answer_N = torch.cat(kept_ND), torch.cat(answers)
        self._gaussians = Gaussians.fitted(self._fitted_ND, answer_N)
        self._profiles = {k: Profiles.fitted(one, self._config.core) for k, one in means.items()}
        self.fitted, self.classes = len(answer_N), int((torch.bincount(answer_N) > 0).sum())

    @torch.inference_mode()
    def scores(self, images: ImageSource, label: str) -> Scores:
        """Scores of images, by detector."""
        found: dict[str, list[list[np.ndarray]]] = {}

        def keep(name: str, number: int, score_N: Tensor) -> None:
            some = found.setdefault(name, [])
            some.extend([] for _ in range(number + 1 - len(some)))
            some[number].append(score_N.double().cpu().numpy())

        for batch in self._passed(images, label):
            logits_NC, mean_ND = batch.logits_NC.cpu(), batch.mean_ND.cpu()
            answer_N = logits_NC.argmax(dim=1)
            keep(SOFTMAX, 0, softmax_score(logits_NC))
            keep(ENERGY, 0, energy_score(logits_NC))
            keep(MAHALANOBIS, 0, self._gaussians.score(mean_ND))
            keep(NEAREST, 0, neighbour_score(mean_ND, self._fitted_ND, self._config.neighbours))
            for (name, number), z_NS in self._codes(batch):
                keep(name, number, self._profiles[name, number].score(z_NS.cpu(), answer_N))
        return {name: [np.concatenate(one) for one in some] for name, some in found.items()}

    def _codes(self, batch: Passed) -> Iterator[tuple[tuple[str, int], Float[Tensor, "n s"]]]:
        """The codes of a batch under every dictionary, and the units themselves."""
        spatial = self._config.code == "spatial"
        x_NPD = batch.x_NPD.float() if spatial else batch.mean_ND[:, None]
        units_NPD = torch.cat([x_NPD.relu(), (-x_NPD).relu()], dim=2) if self._signed else x_NPD
        yield (UNITS, 0), units_NPD.mean(dim=1)
        for name, some in ((LATENTS, self._latents), (RANDOM, self._random)):
            for number, one in enumerate(some):
                yield (name, number), mean_code(one, x_NPD)

    def _random_twins(self, batch: Passed) -> list[SAE]:
        x_RD = batch.x_NPD.flatten(0, 1)[:SAMPLE].float()
        pairs = zip(self._latents, self._on, strict=True)
        return [
            baselines.random(x_RD, max(1, on), one.latents, seed).to(self._device)
            for seed, (one, on) in enumerate(pairs)
        ]

    def _passed(self, images: ImageSource, label: str) -> Iterator[Passed]:
        module = self._subject.module.to(self._device)
        batches = ImageBatches(images, self._subject, self._config.batch_size, self._device, None)
        with splicing(module, self._names, self._subject.logits) as splice:
            for x, _ in batches.shown(label):
                parts = splice.read(x)
                logits = splice.run(x, {})
                if logits.ndim != 2 or logits.shape[0] != x.shape[0] or logits.shape[1] < 2:
                    raise SubjectError(
                        f"study ood needs a network that gives logits of classes, one row an "
                        f"image; {self._subject.name} gives shape {list(logits.shape)}. Choose a "
                        "subject with a classifier."
                    )
                x_ND = to_vectors(parts)
                yield Passed(logits, x_ND.reshape(len(x), -1, x_ND.shape[1]))
        self.unreadable += len(batches.unreadable)


def mean_code(dictionary: SAE, x_NPD: Float[Tensor, "n p d"]) -> Float[Tensor, "n s"]:
    """The mean over positions of each image's codes, some images at a time."""
    together = max(1, BLOCK // x_NPD.shape[1])
    return torch.cat(
        [
            dictionary.encode(some.flatten(0, 1)).reshape(*some.shape[:2], -1).mean(dim=1)
            for some in torch.split(x_NPD, together)
        ]
    )


def all_scores(
    detectors: Detectors, inside: ImageSource, outside: Mapping[str, ImageSource]
) -> tuple[Scores, dict[str, Scores]]:
    """Scores of the images inside and of each set outside."""
    return (
        detectors.scores(inside, "inside"),
        {name: detectors.scores(images, name) for name, images in outside.items()},
    )
