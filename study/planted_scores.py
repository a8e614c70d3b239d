"""What a study of symmetry found in the subject `planted`, held against what was planted there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from .readings import Reading
from .truth import REPRESENTS, Found, PlantedTruth, Score, cosines, planted_truth, score

MEASURES = {
    "match": "median over planted families of the best cosine with a latent",
    "match_chance": "the same with each latent's channels shuffled",
    "family_recall": "planted families that a latent represents",
    "precision": "latents that represent something planted",
    "class_accuracy": "represented families whose class of symmetry is right",
    "orientation_error": "median error of orientation, in degrees",
    "nmi": "normalised mutual information of families found and planted",
    "ari": "adjusted Rand index of the same",
}


@final
@dataclass(frozen=True)
class PlantedScores:
    """Of each run, the one studied first: how it scores, and of each row of the first what it
    represents, in words (none where its best cosine is below REPRESENTS)."""

    runs: tuple[str, ...]
    scores: tuple[Score, ...]
    represents: tuple[str, ...]

    def table(self) -> list[tuple[str, list[str]]]:
        """Measures in words, each with a value a run."""
        figures = [one.figures() for one in self.scores]
        return [
            (text, [_told(name, f.get(name)) for f in figures]) for name, text in MEASURES.items()
        ]

    def summary(self) -> dict[str, dict[str, float | None]]:
        """As JSON: run -> its figures."""
        return {run: one.figures() for run, one in zip(self.runs, self.scores, strict=True)}


def planted_scores(
    subject: str,
    site: str,
    reading: Reading,
    orientations: Sequence[float | None],
    controls: Sequence[Reading],
) -> PlantedScores | None:
    """Scores of a run and its controls; None where nothing was planted."""
    if subject != "planted":
        return None
    from models.subjects.planted import FEATURES

    truth = planted_truth(reading.group, site)
    cosine_SP = cosines(reading.blocks, truth.blocks)
    best_S = cosine_SP.argmax(axis=1)
    return PlantedScores(
        runs=(reading.run, *(control.run for control in controls)),
        scores=(
            _score(reading, truth, _degrees(orientations)),
            *(_score(control, truth, _degrees(control.axes)) for control in controls),
        ),
        represents=tuple(
            f"{FEATURES[p].kind}, cosine {c[p]:.2f}" if c[p] >= REPRESENTS else ""
            for c, p in zip(cosine_SP, best_S, strict=True)
        ),
    )


def _score(reading: Reading, truth: PlantedTruth, degrees_S: Float[np.ndarray, " s"]) -> Score:
    labels_S = np.array([reading.family_of.get(row, -1) for row in range(len(reading.latents))])
    return score(Found(reading.blocks, reading.classes, degrees_S, labels_S), truth)


def _degrees(angles: Sequence[float | None]) -> Float[np.ndarray, " s"]:
    return np.array([np.nan if angle is None else angle for angle in angles], np.float64)


def _told(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "orientation_error":
        return f"{value:.1f}°"
    return (
        f"{100 * value:.0f} %"
        if name in ("family_recall", "precision", "class_accuracy")
        else f"{value:.2f}"
    )
