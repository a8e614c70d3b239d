"""What a study of symmetry found in the subject `planted`, held against what was planted there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float

from ..measures.planted_recovery import (
    REPRESENTS,
    Found,
    PlantedTruth,
    Score,
    cosines,
    planted_truth,
    represented,
    score,
)
from .analysis import Reading

MEASURES = {
    "match": ("match", "median over planted families of the best cosine with a latent"),
    "match_chance": ("by chance", "the same with each latent's channels shuffled"),
    "curves": ("curves", "of 24 planted orientations of curves those that a latent represents"),
    "family_recall": ("families", "planted families that a latent represents"),
    "precision": ("precision", "latents that represent something planted"),
    "class_accuracy": ("classes", "represented families whose class of symmetry is right"),
    "orientation_error": ("angle", "median error of orientation, over what has an axis"),
    "nmi": (
        "NMI",
        "normalised mutual information of families found and planted (tied: of all copies)",
    ),
    "nmi_chance": ("by chance", "that of shuffled labels"),
    "ari": ("ARI", "adjusted Rand index of families found and planted"),
}
"""Measure -> its head in the table, and what it is."""


@final
@dataclass(frozen=True)
class PlantedScores:
    """Of each run, the one studied first: how it scores, and how many planted orientations of
    curves it represents (of a tied run, by any copy); and of each row of the first what it
    represents, in words (none where its best cosine is below REPRESENTS)."""

    runs: tuple[str, ...]
    scores: tuple[Score, ...]
    curves: tuple[int, ...]
    represents: tuple[str, ...]

    def table(self) -> list[tuple[str, list[str]]]:
        """Runs, each with a value a measure."""
        return [
            (run, [_told(name, figures.get(name)) for name in MEASURES])
            for run, figures in self.summary().items()
        ]

    def heads(self) -> list[str]:
        """What stands above the values."""
        return [head for head, _ in MEASURES.values()]

    def legend(self) -> list[tuple[str, str]]:
        """What the heads mean."""
        return list(MEASURES.values())

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """As JSON: run -> its figures."""
        return {
            run: one.figures() | {"curves": curves}
            for run, one, curves in zip(self.runs, self.scores, self.curves, strict=True)
        }


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
    from tendril.models.subjects.synthetic.planted import FEATURES

    truth = _with_an_axis(planted_truth(reading.group, site))
    cosine_SP = cosines(reading.blocks, truth.blocks)
    best_S = cosine_SP.argmax(axis=1)
    return PlantedScores(
        runs=(reading.run, *(control.run for control in controls)),
        scores=(
            _score(reading, truth, _degrees(orientations)),
            *(_score(control, _axes(truth), _degrees(control.axes)) for control in controls),
        ),
        curves=tuple(_curves(one, truth) for one in (reading, *controls)),
        represents=tuple(
            f"{FEATURES[p].kind}, cosine {c[p]:.2f}" if c[p] >= REPRESENTS else ""
            for c, p in zip(cosine_SP, best_S, strict=True)
        ),
    )


def _with_an_axis(truth: PlantedTruth) -> PlantedTruth:
    """The truth without the orientations of what nothing fixes: that has no axis to be found."""
    chiral_P = np.array([name == "chiral" for name in truth.classes])
    return replace(truth, orientations=np.where(chiral_P, np.nan, truth.orientations))


def _axes(truth: PlantedTruth) -> PlantedTruth:
    """The truth modulo 180 degrees: blocks alone do not tell a bulge from its opposite."""
    return replace(truth, periods=np.minimum(truth.periods, 180.0))


def _score(reading: Reading, truth: PlantedTruth, degrees_S: Float[np.ndarray, " s"]) -> Score:
    labels_S = np.array([reading.family_of.get(row, -1) for row in range(len(reading.latents))])
    told = score(Found(reading.blocks, reading.classes, degrees_S, labels_S), truth)
    if not reading.tied:
        return told
    # Representatives alone are a family each, by any labels: what is grouped are all the copies.
    copies = Found(_copies(reading), labels=np.repeat(labels_S, len(reading.group)))
    grouped = score(copies, truth)
    return replace(told, nmi=grouped.nmi, ari=grouped.ari, nmi_chance=grouped.nmi_chance)


def _curves(reading: Reading, truth: PlantedTruth) -> int:
    """How many planted orientations of curves some latent, or copy, represents."""
    from tendril.models.subjects.synthetic.planted import FEATURES

    blocks = _copies(reading) if reading.tied else reading.blocks
    there_P = represented(Found(blocks), truth)
    return sum(f.kind == "curve" for f, there in zip(FEATURES, there_P, strict=True) if there)


def _copies(reading: Reading) -> Float[np.ndarray, "c g d"]:
    """The blocks of every copy h of every row, D_f[g h], as latent f G + h."""
    copies_FHGD = reading.blocks[:, reading.group.table_GG.T]
    return copies_FHGD.reshape(-1, *reading.blocks.shape[1:])


def _degrees(angles: Sequence[float | None]) -> Float[np.ndarray, " s"]:
    return np.array([np.nan if angle is None else angle for angle in angles], np.float64)


def _told(name: str, value: float | int | None) -> str:
    if value is None:
        return "-"
    if name == "orientation_error":
        return f"{value:.1f}°"
    if name == "curves":
        return f"{value:.0f}"
    return (
        f"{100 * value:.0f} %"
        if name in ("family_recall", "precision", "class_accuracy")
        else f"{value:.2f}"
    )
