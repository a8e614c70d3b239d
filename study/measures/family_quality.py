"""How good the families of a dictionary are, by measures that every kind of dictionary has.

All are taken on orbits that were held out of training. An orbit is assigned to the family whose
members are most active on it, summed over members and poses; to none (-1) where no latent is
active.

    silhouette      of the assigned orbits, at the distance 1 - cosine in the best pose, averaged
                    over orbits (Rousseeuw, 1987); chance: assignments shuffled
    class agreement fraction of members, heads left out, of the class of symmetry of their head;
                    chance: two latents drawn at random
    stability       adjusted Rand index (Hubert and Arabie, 1985) of the assignments of two seeds;
                    chance: 0
    units           adjusted Rand index with the assignments by families of units; chance: 0
    pose error      degrees between the known turn of an orbit and the one decoded from the codes of
                    its family, modulo the period of the family; chance: a quarter of the period

The decoded direction of an orbit is that of sum_s z_s exp(i 2 pi d_s / period), where d_s is the
direction of member s within its family, so a family of one member decodes nothing. All orbits
count: those of an invariant family or of none, and inactive codes, with the error of chance.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Float32, Int64
from sklearn.metrics import adjusted_rand_score, silhouette_score

from tendril.data.group.dihedral import Dihedral

from .latent_families import LatentFamily, directed

SHUFFLES = 5
NONE = -1


@final
@dataclass(frozen=True)
class Members:
    """The members of families, as columns of codes.

    families: the number of each column's family
    directions: degrees of each member within its family
    periods: degrees after which a family's directions repeat, by family; 0 for an invariant one
    """

    families: Int64[np.ndarray, " s"]
    directions: Float[np.ndarray, " s"]
    periods: Float[np.ndarray, " f"]


@final
@dataclass(frozen=True)
class FamilyQuality:
    """The measures of one dictionary; `stability` is of several runs and therefore not here.

    families: those to which an orbit is assigned
    members: fraction of the latents that share a family with another one
    """

    families: int
    members: float
    silhouette: float
    silhouette_chance: float
    agreement: float
    agreement_chance: float
    units: float
    pose_error: float
    pose_chance: float

    def figures(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def members_of(
    families: Sequence[LatentFamily], latents: Int64[np.ndarray, " f"], total: int
) -> Members:
    """Members of families of rows, where row i is column `latents[i]` of the codes; a column that
    is no row is of no family."""
    columns_S = np.full(total, NONE, np.int64)
    directions_S = np.zeros(total)
    for number, family in enumerate(families):
        for row, direction in zip(family.members, _directions(family), strict=True):
            columns_S[latents[row]], directions_S[latents[row]] = number, direction
    return Members(columns_S, directions_S, np.array([family.period for family in families]))


def tied_members_of(
    families: Sequence[LatentFamily], latents: Int64[np.ndarray, " f"], total: int, group: Dihedral
) -> Members:
    """The same for an equivariant group crosscoder: column f G + h is copy h of latent f.

    A member in pose p of its head has its copy h in pose h p.
    """
    size = len(group)
    columns_FH = np.full((total, size), NONE, np.int64)
    directions_FH = np.zeros((total, size))
    for number, family in enumerate(families):
        for row, pose in zip(family.members, family.poses, strict=True):
            columns_FH[latents[row]] = number
            directions_FH[latents[row]] = [
                directed(group, group.product(h, pose), family.angle) for h in range(size)
            ]
    periods_F = np.array([family.period for family in families])
    return Members(columns_FH.ravel(), directions_FH.ravel(), periods_F)


def assigned(z_NGS: Float32[np.ndarray, "n g s"], members: Members) -> Int64[np.ndarray, " n"]:
    """The family that is most active on each orbit, over all poses; NONE where none is."""
    count = len(members.periods)
    if not count:
        return np.full(len(z_NGS), NONE, np.int64)
    known_S = members.families >= 0
    member_SF = np.zeros((len(members.families), count), np.float32)
    member_SF[np.flatnonzero(known_S), members.families[known_S]] = 1
    active_NF = z_NGS.sum(axis=1) @ member_SF
    return np.where(active_NF.max(axis=1) > 0, active_NF.argmax(axis=1), NONE)


def silhouette(
    likeness_NN: Float[np.ndarray, "n n"], assigned_N: Int64[np.ndarray, " n"]
) -> tuple[float, float]:
    """The mean silhouette of assigned orbits at the distance 1 - likeness, and its chance level.
    Both are 0 where all orbits are in one family, or each in one of its own."""
    if not 1 < len(np.unique(assigned_N)) < len(assigned_N):
        return 0.0, 0.0
    distance_NN = np.clip(1 - (likeness_NN.astype(np.float64) + likeness_NN.T) / 2, 0, 2)
    np.fill_diagonal(distance_NN, 0)
    rng = np.random.default_rng(0)
    values = [
        float(silhouette_score(distance_NN, labels_N, metric="precomputed"))
        for labels_N in (assigned_N, *(rng.permutation(assigned_N) for _ in range(SHUFFLES)))
    ]
    return values[0], float(np.mean(values[1:]))


def class_agreement(
    families: Sequence[LatentFamily], classes: Sequence[str]
) -> tuple[float, float, float]:
    """The fraction of members that share their head's class, its chance level, and the fraction of
    latents in families of two or more. The first is 0 where there are no such families."""
    same = [
        classes[row] == classes[family.head]
        for family in families
        for row in family.members
        if row != family.head
    ]
    within = sum(len(family.members) for family in families if len(family.members) > 1)
    many = len(classes)
    counts = [list(classes).count(name) for name in set(classes)]
    chance = sum(c * (c - 1) for c in counts) / (many * (many - 1)) if many > 1 else 0.0
    return float(np.mean(same)) if same else 0.0, chance, within / many if many else 0.0


def pose_error(
    z_NGS: Float32[np.ndarray, "n g s"],
    members: Members,
    assigned_N: Int64[np.ndarray, " n"],
    group: Dihedral,
) -> tuple[float, float]:
    """The mean error of decoded turns in degrees over all orbits, and its chance level."""
    turns_A = np.arange(1, group.rotations)
    error_NA = np.full((len(z_NGS), len(turns_A)), 90.0)
    chance_N = np.full(len(z_NGS), 90.0)
    for family in np.unique(assigned_N[assigned_N >= 0]):
        period = float(members.periods[family])
        if period == 0:
            continue
        mine_S = np.flatnonzero(members.families == family)
        arrow_S = np.exp(2j * np.pi * members.directions[mine_S] / period)
        rows_N = np.flatnonzero(assigned_N == family)
        codes_NAS = z_NGS[rows_N][:, : group.rotations, mine_S]
        seen_NA = codes_NAS @ arrow_S
        silent_NA = np.abs(seen_NA) <= 1e-6 * np.abs(codes_NAS).sum(axis=2).max(initial=0)
        angle_NA = np.angle(seen_NA) * period / (2 * np.pi)
        off_NA = angle_NA[:, 1:] - angle_NA[:, :1] - group.step * turns_A
        apart_NA = np.abs((off_NA + period / 2) % period - period / 2)
        apart_NA[silent_NA[:, 1:] | silent_NA[:, :1]] = period / 4
        error_NA[rows_N], chance_N[rows_N] = apart_NA, period / 4
    return float(error_NA.mean()), float(chance_N.mean())


def family_quality(
    z_NGS: Float32[np.ndarray, "n g s"],
    members: Members,
    families: Sequence[LatentFamily],
    classes: Sequence[str],
    likeness_NN: Float[np.ndarray, "n n"],
    units_N: Int64[np.ndarray, " n"],
    group: Dihedral,
) -> tuple[FamilyQuality, Int64[np.ndarray, " n"]]:
    """The measures of one dictionary and its assignments, given those by families of units."""
    assigned_N = assigned(z_NGS, members)
    agreement, agreement_chance, within = class_agreement(families, classes)
    inside, by_chance = silhouette(likeness_NN, assigned_N)
    error, error_chance = pose_error(z_NGS, members, assigned_N, group)
    quality = FamilyQuality(
        families=len(np.unique(assigned_N[assigned_N >= 0])),
        members=within,
        silhouette=inside,
        silhouette_chance=by_chance,
        agreement=agreement,
        agreement_chance=agreement_chance,
        units=float(adjusted_rand_score(units_N, assigned_N)),
        pose_error=error,
        pose_chance=error_chance,
    )
    return quality, assigned_N


def stability(assignments: Sequence[Int64[np.ndarray, " n"]]) -> list[float]:
    """The adjusted Rand index of each pair of runs."""
    return [
        float(adjusted_rand_score(one, other))
        for i, one in enumerate(assignments)
        for other in assignments[i + 1 :]
    ]


def _directions(family: LatentFamily) -> list[float]:
    return [directed(family.group, pose, family.angle) for pose in family.poses]
