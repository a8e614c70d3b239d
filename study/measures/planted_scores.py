"""Scores of symmetry analyses on subjects with planted features, against these features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float

from tendril.models.subjects.synthetic.planted_features import REPRESENTS
from tendril.models.subjects.synthetic.planted_networks import NAMES

from .planted_recovery import (
    Found,
    PlantedTruth,
    Score,
    cosines,
    planted_truth,
    represented,
    score,
)
from .symmetry_analysis import SymmetryAnalysis


@final
@dataclass(frozen=True)
class PlantedScores:
    """Scores of each run, the one studied first.

    curves: planted curves that each run represents (a tied run by any copy).
    curves_planted: the number of planted curves, at all orientations.
    represents: what each row of the first run represents, in words; empty where its best cosine
        is below REPRESENTS.
    """

    runs: tuple[str, ...]
    scores: tuple[Score, ...]
    curves: tuple[int, ...]
    curves_planted: int
    represents: tuple[str, ...]

    def figures(self) -> dict[str, dict[str, float | int | None]]:
        """The scores as JSON values: run -> measure -> value."""
        return {
            run: one.figures() | {"curves": curves, "curves_planted": self.curves_planted}
            for run, one, curves in zip(self.runs, self.scores, self.curves, strict=True)
        }


def planted_scores(
    subject: str,
    site: str,
    analysis: SymmetryAnalysis,
    orientations: Sequence[float | None],
    controls: Sequence[SymmetryAnalysis],
) -> PlantedScores | None:
    """Scores of a run, whose rows have the given orientations, and of its controls; None where
    nothing was planted in the subject."""
    if subject not in NAMES:
        return None
    truth = _with_an_axis(planted_truth(analysis.group, site, subject))
    cosine_SP = cosines(analysis.blocks, truth.blocks)
    best_S = cosine_SP.argmax(axis=1)
    return PlantedScores(
        runs=(analysis.run, *(control.run for control in controls)),
        scores=(
            _score(analysis, truth, _degrees(orientations)),
            *(_score(control, _axes(truth), _degrees(control.axes)) for control in controls),
        ),
        curves=tuple(_curves(one, truth) for one in (analysis, *controls)),
        curves_planted=truth.kinds.count("curve"),
        represents=tuple(
            f"{truth.kinds[p]}, cosine {c[p]:.2f}" if c[p] >= REPRESENTS else ""
            for c, p in zip(cosine_SP, best_S, strict=True)
        ),
    )


def _with_an_axis(truth: PlantedTruth) -> PlantedTruth:
    """The truth without orientations of chiral features, which have no axis to find."""
    chiral_P = np.array([name == "chiral" for name in truth.classes])
    return replace(truth, orientations=np.where(chiral_P, np.nan, truth.orientations))


def _axes(truth: PlantedTruth) -> PlantedTruth:
    """The truth modulo 180 degrees: blocks alone do not tell a bulge from its opposite."""
    return replace(truth, periods=np.minimum(truth.periods, 180.0))


def _score(
    analysis: SymmetryAnalysis, truth: PlantedTruth, degrees_S: Float[np.ndarray, " s"]
) -> Score:
    labels_S = np.array([analysis.family_of.get(row, -1) for row in range(len(analysis.latents))])
    single = score(Found(analysis.blocks, analysis.classes, degrees_S, labels_S), truth)
    if not analysis.tied:
        return single
    # Each representative is a family of its own whatever the labels, so all copies are grouped.
    # Copies also reach the features that their representatives do not.
    copies = Found(_copies(analysis), labels=np.repeat(labels_S, len(analysis.group)))
    grouped = score(copies, truth)
    return replace(
        single,
        recall=grouped.recall,
        nmi=grouped.nmi,
        ari=grouped.ari,
        nmi_chance=grouped.nmi_chance,
        ari_all=grouped.ari_all,
    )


def _curves(analysis: SymmetryAnalysis, truth: PlantedTruth) -> int:
    """Number of planted curves that some latent, or copy, represents."""
    blocks = _copies(analysis) if analysis.tied else analysis.blocks
    there_P = represented(Found(blocks), truth)
    return sum(k == "curve" for k, there in zip(truth.kinds, there_P, strict=True) if there)


def _copies(analysis: SymmetryAnalysis) -> Float[np.ndarray, "c g d"]:
    """The blocks of copy h of every row, D_f[g h], as latent f G + h."""
    copies_FHGD = analysis.blocks[:, analysis.group.table_GG.T]
    return copies_FHGD.reshape(-1, *analysis.blocks.shape[1:])


def _degrees(angles: Sequence[float | None]) -> Float[np.ndarray, " s"]:
    return np.array([np.nan if angle is None else angle for angle in angles], np.float64)
