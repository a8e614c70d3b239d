"""What the study of outside inputs finds: scores by detector and set, and how well they tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float64, UInt8

from ..measures.outside_scores import auroc, auroc_error, false_positives

SOFTMAX, ENERGY = "maximum softmax", "energy"
MAHALANOBIS, NEAREST = "Mahalanobis", "nearest neighbours"
LATENTS, UNITS, RANDOM = "profiles of latents", "profiles of units", "profiles of random directions"
BASELINES = (SOFTMAX, ENERGY, MAHALANOBIS, NEAREST)
DETECTORS = (LATENTS, UNITS, RANDOM, *BASELINES)
INSIDE = "inside"

Scores = Mapping[str, Sequence[Float64[np.ndarray, " n"]]]
"""Scores of a set's images, by detector: one array a dictionary, or one alone."""


@final
@dataclass(frozen=True)
class Picture:
    """An image and its score."""

    name: str
    score: float
    pixels_HWC: UInt8[np.ndarray, "h w 3"]


@final
@dataclass(frozen=True)
class Outside:
    """Scores of the images inside and of each set outside, and what was fitted: `fitted` images
    of `classes` answered classes.

    `pictures` are images inside with the highest scores under the first dictionary, and images
    outside with the lowest, by set.
    """

    subject: str
    site: str
    runs: Sequence[str]
    fitted: int
    classes: int
    inside: Scores
    outside: Mapping[str, Scores]
    remark: str
    unreadable: int
    pictures: Mapping[str, Sequence[Picture]]

    def records(self) -> list[dict[str, Any]]:
        """One record a detector and set."""
        return [
            self._record(detector, name, scores)
            for detector in DETECTORS
            for name, scores in self.outside.items()
        ]

    def _record(self, detector: str, name: str, scores: Scores) -> dict[str, Any]:
        pairs = list(zip(self.inside[detector], scores[detector], strict=True))
        area = [auroc(inside, outside) for inside, outside in pairs]
        missed = [false_positives(inside, outside) for inside, outside in pairs]
        mean = float(np.mean(area))
        error = auroc_error(mean, len(pairs[0][0]), len(pairs[0][1]))
        return {
            "detector": detector,
            "outside": name,
            "images": len(pairs[0][1]),
            "auroc": round(mean, 4),
            "auroc_least": round(min(area), 4),
            "auroc_most": round(max(area), 4),
            "auroc_error": round(error, 4),
            "fpr95": round(float(np.mean(missed)), 4),
            "fpr95_least": round(min(missed), 4),
            "fpr95_most": round(max(missed), 4),
            "dictionaries": len(pairs),
        }

    def averages(self) -> dict[str, tuple[float, float]]:
        """Mean AUROC and FPR95 of each detector over the sets."""
        found: dict[str, list[tuple[float, float]]] = {}
        for one in self.records():
            found.setdefault(one["detector"], []).append((one["auroc"], one["fpr95"]))
        return {
            name: (float(np.mean([a for a, _ in some])), float(np.mean([f for _, f in some])))
            for name, some in found.items()
        }

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        averages = self.averages()
        best = max(BASELINES, key=lambda name: averages[name][0])
        return {
            "subject": self.subject,
            "site": self.site,
            "dictionaries": len(self.runs),
            "fitted": self.fitted,
            "classes": self.classes,
            "inside": len(self.inside[SOFTMAX][0]),
            "sets": len(self.outside),
            "auroc_latents": round(averages[LATENTS][0], 4),
            "fpr95_latents": round(averages[LATENTS][1], 4),
            "best_baseline": best,
            "auroc_best_baseline": round(averages[best][0], 4),
            "fpr95_best_baseline": round(averages[best][1], 4),
            "auroc_units": round(averages[UNITS][0], 4),
            "auroc_random": round(averages[RANDOM][0], 4),
            "unreadable": self.unreadable,
            "records": self.records(),
        }
