"""Scores of found latents against planted features.

Letters: S latents found, P planted features, G elements of the group (1 for a plain dictionary),
D channels. All blocks of a latent are compared at once: with v the blocks flattened to G D,

    cos[s, p] = <v_s, v_p> / (|v_s| |v_p|).

The group maps planted features to planted features, so the best p over a family is also the best
over all poses of the latent. A latent *represents* p(s) = argmax_p cos[s, p] if that cosine is at
least REPRESENTS; otherwise it represents nothing. Where features are reference orientations of a
continuous family, it also represents those of the family of p(s) with a cosine of at least
REPRESENTS, but never features of two families.
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
from tendril.models.subjects.synthetic.planted_features import CLASSES, REPRESENTS
from tendril.models.subjects.synthetic.planted_networks import features_of

SHUFFLES = 20


@final
@dataclass(frozen=True)
class PlantedTruth:
    """The planted features.

    blocks: those of a latent that represents each feature
    families: the number of each feature's family
    classes: the class of symmetry of each feature, as in `stabilisers.CLASSES`
    orientations: in degrees; NaN where a feature has none
    periods: degrees after which an orientation repeats
    kinds: curve, line, corner, circle or hook
    continuous: True if features are reference orientations of continuous families
    """

    blocks: Float[np.ndarray, "p g d"]
    families: Int[np.ndarray, " p"]
    classes: tuple[str, ...]
    orientations: Float[np.ndarray, " p"]
    periods: Float[np.ndarray, " p"]
    kinds: tuple[str, ...] = ()
    continuous: bool = False


@final
@dataclass(frozen=True)
class Found:
    """The latents found: their blocks and, if they were determined, classes, orientations (NaN for
    none) and family labels (-1 for no family)."""

    blocks: Float[np.ndarray, "s g d"]
    classes: Sequence[str] | None = None
    orientations: Float[np.ndarray, " s"] | None = None
    labels: Int[np.ndarray, " s"] | None = None


@final
@dataclass(frozen=True)
class Score:
    """Agreement of latents with planted features. A measure is None where its input was not given,
    and NaN where it is over nothing.

    precision: fraction of latents that represent a planted feature
    recall: fraction of planted features that some latent represents
    family_recall: fraction of planted families with a member that some latent represents
    match: median over planted families of max cos[s, p] over their members and all latents
    match_latents: median over latents of max_p cos[s, p]
    match_chance: `match` after shuffling each latent's channels, in the same way in all its blocks
    orientation_error: median over representing latents whose feature has an orientation of
        |o_s - o_p| modulo the period, in degrees; half a period for a latent without orientation
    orientation_chance: that of a random orientation, median period / 4
    class_accuracy: fraction of represented families most of whose representing latents have the
        right class (a tie counts as wrong)
    class_accuracy_all: the same over all planted families, where one that is not represented
        counts as wrong
    class_chance: that of giving every family the most frequent of the true classes
    nmi, ari: of labels against planted families over representing latents; latents without a
        family count as a family each
    nmi_chance: mean NMI of shuffled labels, which is above 0 for few latents; that of ARI is 0
    ari_all: ARI of the labels of all planted features against their families, where a feature has
        the label of the latent with the largest cosine if that represents it; one that no latent
        represents, or whose latent has no family, counts as a family by itself. A missed family of
        one feature, a circle, leaves it at 1: `family_recall` counts it
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
    class_accuracy_all: float | None = None
    class_chance: float | None = None
    nmi: float | None = None
    ari: float | None = None
    nmi_chance: float | None = None
    ari_all: float | None = None

    def figures(self) -> dict[str, Any]:
        """The measures that are not None, as JSON values; null for NaN."""
        return {
            name: round(value, 4) if np.isfinite(value) else None
            for name, value in asdict(self).items()
            if value is not None
        }


def planted_truth(group: Dihedral | None, site: str, subject: str = "planted") -> PlantedTruth:
    """The planted features of a subject (one of `planted_networks.NAMES`), for orbits of a group.

    Without a group they are those for a plain dictionary, and families are those of D_24.

    Raises ConfigError for a site without planted features, and for a group that does not permute
    them.
    """
    planted = features_of(subject)
    angles = [f.orientation for f in planted.features]
    return PlantedTruth(
        blocks=planted.blocks(group or Dihedral(1, reflections=False), site),
        families=planted.families(group or Dihedral(24)),
        classes=tuple(CLASSES[f.kind] for f in planted.features),
        orientations=np.array([np.nan if a is None else a for a in angles]),
        periods=np.array([180.0 if f.kind == "line" else 360.0 for f in planted.features]),
        kinds=tuple(f.kind for f in planted.features),
        continuous=planted.continuous,
    )


def score(found: Found, truth: PlantedTruth, seed: int = 0) -> Score:
    """Every measure whose input was given. Raises ConfigError where shapes do not match."""
    if found.blocks.shape[1:] != truth.blocks.shape[1:]:
        raise ConfigError(
            f"blocks [G, D] of latents must have the shape {list(truth.blocks.shape[1:])} of the "
            f"planted ones; got {list(found.blocks.shape[1:])}. Use the truth of the same group "
            "and site."
        )
    rng = np.random.Generator(np.random.Philox(seed))
    cosine_SP = cosines(found.blocks, truth.blocks)
    best_S = cosine_SP.argmax(axis=1)
    represents_S = cosine_SP.max(axis=1, initial=-1.0) >= REPRESENTS
    reached = np.flatnonzero(_represented(cosine_SP, truth))
    chance_SP = cosines(_shuffled(found.blocks, rng), truth.blocks)
    families = np.unique(truth.families)
    parts: dict[str, float] = {}
    if found.orientations is not None:
        parts |= _orientation(found.orientations, truth, best_S, represents_S)
    if found.classes is not None:
        parts |= _classes(found.classes, truth, best_S, represents_S)
    if found.labels is not None:
        parts |= _labels(found.labels[represents_S], truth.families[best_S[represents_S]], rng)
        parts["ari_all"] = _ari_of_all(found.labels, cosine_SP, truth.families)
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
    """True for each planted feature that some latent represents."""
    return _represented(cosines(found.blocks, truth.blocks), truth)


def _represented(cosine_SP: np.ndarray, truth: PlantedTruth) -> Bool[np.ndarray, " p"]:
    best_S = cosine_SP.argmax(axis=1)
    represents_S = cosine_SP.max(axis=1, initial=-1.0) >= REPRESENTS
    there_P = np.zeros(len(truth.blocks), bool)
    there_P[best_S[represents_S]] = True
    if truth.continuous:
        same_SP = truth.families[best_S][:, None] == truth.families
        there_P |= (same_SP & (cosine_SP >= REPRESENTS)).any(axis=0)
    return there_P


def cosines(
    found_SGD: Float[np.ndarray, "s g d"], planted_PGD: Float[np.ndarray, "p g d"]
) -> Float[np.ndarray, "s p"]:
    """Cosines of all blocks at once; 0 for a latent whose blocks are zero."""
    sides = []
    for blocks in (found_SGD, planted_PGD):
        flat = blocks.reshape(len(blocks), math.prod(blocks.shape[1:])).astype(np.float64)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        sides.append(np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0))
    return np.asarray(sides[0] @ sides[1].T)


def _shuffled(blocks_SGD: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each latent's channels in a random order, which is the same in all its blocks."""
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
        "class_accuracy_all": sum(right) / len(np.unique(truth.families)),
        "class_chance": most / len(names) if names else np.nan,
    }


def _labels(labels: np.ndarray, families: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    if len(labels) == 0:
        return {"nmi": np.nan, "ari": np.nan, "nmi_chance": np.nan}
    labels = _alone(labels)
    shuffled = [
        normalized_mutual_info_score(families, rng.permutation(labels)) for _ in range(SHUFFLES)
    ]
    return {
        "nmi": float(normalized_mutual_info_score(families, labels)),
        "ari": float(adjusted_rand_score(families, labels)),
        "nmi_chance": _mean(np.array(shuffled)),
    }


def _ari_of_all(labels_S: np.ndarray, cosine_SP: np.ndarray, families_P: np.ndarray) -> float:
    if not len(labels_S):
        return 0.0
    there_P = cosine_SP.max(axis=0) >= REPRESENTS
    labels_P = np.where(there_P, labels_S[cosine_SP.argmax(axis=0)], -1)
    return float(adjusted_rand_score(families_P, _alone(labels_P)))


def _alone(labels: np.ndarray) -> np.ndarray:
    """The labels, with one of its own for each entry without a family (-1)."""
    own = labels.max(initial=0) + 1 + np.arange(len(labels))
    return np.where(labels < 0, own, labels)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
