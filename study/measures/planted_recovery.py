"""Found latents scored against planted features.

Letters: S latents found, P planted features, G elements of the group (1 for a plain dictionary),
D channels. A latent is compared by all its blocks at once: with v the blocks flattened to G D,

    cos[s, p] = <v_s, v_p> / (|v_s| |v_p|).

Planted features are closed under the group, so the best p over a family is the best over all
poses of the latent, too. A latent *represents* p(s) = argmax_p cos[s, p] where that cosine is at
least REPRESENTS; else it represents nothing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral

REPRESENTS = 0.8
"""Least cosine: a latent between two features has .71 with each (more only as they are alike)."""
SHUFFLES = 20


@final
@dataclass(frozen=True)
class PlantedTruth:
    """What was planted: blocks as the latent that stands for each feature should have them, the
    family that each feature belongs to, what fixes it (a class of the study of symmetry), its
    orientation in degrees (NaN where it has none) and the angle after which that repeats."""

    blocks: Float[np.ndarray, "p g d"]
    families: Int[np.ndarray, " p"]
    classes: tuple[str, ...]
    orientations: Float[np.ndarray, " p"]
    periods: Float[np.ndarray, " p"]


@final
@dataclass(frozen=True)
class Found:
    """What was found: blocks, and whatever of class, orientation (NaN where none is claimed) and
    family label (-1: in no family) was concluded from them. The three are optional."""

    blocks: Float[np.ndarray, "s g d"]
    classes: Sequence[str] | None = None
    orientations: Float[np.ndarray, " s"] | None = None
    labels: Int[np.ndarray, " s"] | None = None


@final
@dataclass(frozen=True)
class Score:
    """How found and planted agree; a measure that nothing was given for is None, and one over
    nothing NaN.

    precision: share of latents that represent a planted feature
    recall: share of planted features that some latent represents
    family_recall: share of planted families of which some latent represents a member
    match: median over planted families of max cos[s, p] over its members and all latents
    match_latents: median over latents of max_p cos[s, p]
    match_chance: `match` after shuffling each latent's channels, the same for all of its blocks
    orientation_error: median over representing latents whose feature has an orientation of
        |o_s - o_p| modulo the period, in degrees; one that claims none errs by half a period
    orientation_chance: that of a random orientation, median period / 4
    class_accuracy: share of represented families whose representing latents are mostly of the
        right class (a tie is wrong)
    class_chance: that of calling every family by the most frequent of their classes
    nmi, ari: of the labels against planted families over representing latents; those in no
        family count as a family each
    nmi_chance: the mean NMI of shuffled labels, which is above 0 for few latents; that of ARI is 0
    """

    precision: float
    recall: float
    family_recall: float
    match: float
    match_latents: float
    match_chance: float
    orientation_error: float | None = None
    orientation_chance: float | None = None
    class_accuracy: float | None = None
    class_chance: float | None = None
    nmi: float | None = None
    ari: float | None = None
    nmi_chance: float | None = None

    def figures(self) -> dict[str, Any]:
        """What was measured, for the result of a command."""
        return {
            name: round(value, 4) if np.isfinite(value) else None
            for name, value in asdict(self).items()
            if value is not None
        }


def planted_truth(group: Dihedral | None, site: str) -> PlantedTruth:
    """The truth about the subject `planted`, for orbits of a group, or for a plain dictionary:
    then families are those of D_24.

    Raises ConfigError for a site without planted features, and for a group that does not
    permute them.
    """
    from tendril.models.subjects.synthetic import planted

    blocks = planted.planted_blocks(group or Dihedral(1, reflections=False), site)
    angles = [f.orientation for f in planted.FEATURES]
    return PlantedTruth(
        blocks=blocks,
        families=planted.families(group or Dihedral(24)),
        classes=tuple(planted.CLASSES[f.kind] for f in planted.FEATURES),
        orientations=np.array([np.nan if a is None else a for a in angles]),
        periods=np.array([180.0 if f.kind == "line" else 360.0 for f in planted.FEATURES]),
    )


def score(found: Found, truth: PlantedTruth, seed: int = 0) -> Score:
    """Every measure that what was found allows. Raises ConfigError where shapes do not fit."""
    if found.blocks.shape[1:] != truth.blocks.shape[1:]:
        raise ConfigError(
            f"latents have blocks [G, D] = {list(found.blocks.shape[1:])}, and what was planted "
            f"has {list(truth.blocks.shape[1:])}; take the truth of the same group and site."
        )
    rng = np.random.Generator(np.random.Philox(seed))
    cosine_SP = cosines(found.blocks, truth.blocks)
    best_S = cosine_SP.argmax(axis=1)
    represents_S = cosine_SP.max(axis=1, initial=-1.0) >= REPRESENTS
    reached = np.unique(best_S[represents_S])
    chance_SP = cosines(_shuffled(found.blocks, rng), truth.blocks)
    families = np.unique(truth.families)
    parts: dict[str, float] = {}
    if found.orientations is not None:
        parts |= _orientation(found.orientations, truth, best_S, represents_S)
    if found.classes is not None:
        parts |= _classes(found.classes, truth, best_S, represents_S)
    if found.labels is not None:
        parts |= _labels(found.labels[represents_S], truth.families[best_S[represents_S]], rng)
    return Score(
        precision=_mean(represents_S),
        recall=len(reached) / len(truth.blocks),
        family_recall=len(np.unique(truth.families[reached])) / len(families),
        match=_family_match(cosine_SP, truth),
        match_latents=_median(cosine_SP.max(axis=1, initial=-1.0)),
        match_chance=_family_match(chance_SP, truth),
        **parts,
    )


def represented(found: Found, truth: PlantedTruth) -> Bool[np.ndarray, " p"]:
    """Which planted features some latent represents."""
    cosine_SP = cosines(found.blocks, truth.blocks)
    there_P = np.zeros(len(truth.blocks), bool)
    there_P[cosine_SP.argmax(axis=1)[cosine_SP.max(axis=1) >= REPRESENTS]] = True
    return there_P


def cosines(
    found_SGD: Float[np.ndarray, "s g d"], planted_PGD: Float[np.ndarray, "p g d"]
) -> Float[np.ndarray, "s p"]:
    """Of all blocks at once; 0 for a latent that is zero."""
    sides = []
    for blocks in (found_SGD, planted_PGD):
        flat = blocks.reshape(len(blocks), math.prod(blocks.shape[1:])).astype(np.float64)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        sides.append(np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0))
    return np.asarray(sides[0] @ sides[1].T)


def _shuffled(blocks_SGD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each latent's channels in a random order, the same in all of its blocks."""
    order_SD = np.argsort(rng.random((len(blocks_SGD), blocks_SGD.shape[2])), axis=1)
    return np.take_along_axis(blocks_SGD, order_SD[:, None, :], axis=2)


def _family_match(cosine_SP: np.ndarray, truth: PlantedTruth) -> float:
    best_P = cosine_SP.max(axis=0, initial=-1.0)
    families = np.unique(truth.families)
    return _median(np.array([best_P[truth.families == family].max() for family in families]))


def _orientation(
    claimed_S: np.ndarray, truth: PlantedTruth, best_S: np.ndarray, represents_S: np.ndarray
) -> dict[str, float]:
    judged_S = represents_S & np.isfinite(truth.orientations[best_S])
    period = truth.periods[best_S[judged_S]]
    apart = claimed_S[judged_S] - truth.orientations[best_S[judged_S]]
    error = np.abs((apart + period / 2) % period - period / 2)
    error = np.where(np.isfinite(error), error, period / 2)
    return {"orientation_error": _median(error), "orientation_chance": _median(period / 4)}


def _classes(
    claimed: Sequence[str], truth: PlantedTruth, best_S: np.ndarray, represents_S: np.ndarray
) -> dict[str, float]:
    right, names = [], []
    for family in np.unique(truth.families[best_S[represents_S]]):
        members = np.flatnonzero(represents_S & (truth.families[best_S] == family)).tolist()
        votes = Counter(claimed[s] for s in members)
        name = truth.classes[best_S[members[0]]]
        right.append(all(votes[name] > n for other, n in votes.items() if other != name))
        names.append(name)
    most = max(Counter(names).values(), default=0)
    return {
        "class_accuracy": _mean(np.array(right)),
        "class_chance": most / len(names) if names else np.nan,
    }


def _labels(labels: np.ndarray, families: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    if len(labels) == 0:
        return {"nmi": np.nan, "ari": np.nan, "nmi_chance": np.nan}
    alone = labels < 0
    labels = np.where(alone, labels.max(initial=0) + 1 + np.arange(len(labels)), labels)
    shuffled = [
        normalized_mutual_info_score(families, rng.permutation(labels)) for _ in range(SHUFFLES)
    ]
    return {
        "nmi": float(normalized_mutual_info_score(families, labels)),
        "ari": float(adjusted_rand_score(families, labels)),
        "nmi_chance": _mean(np.array(shuffled)),
    }


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
