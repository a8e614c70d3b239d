"""Families of latents that are copies of one pattern, by their similarity over the group.

Latent i is latent j in pose h if D_i[g] = D_j[gh]: where j represents the pattern p, i represents
T_h p, since x(T_h p)[g] = x(p)[gh].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy import fft
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from tendril.data.group.dihedral import Dihedral

from .curve_scores import Gap, gaps
from .stabilisers import centred
from .subgroups import Subgroup

CHUNK_BYTES = 2**27
HALF_DIGIT = 0.05  # degrees: half of the last digit that tables show


def alignment(
    a_FGD: Float[np.ndarray, "f g d"], b_EGD: Float[np.ndarray, "e g d"], group: Dihedral
) -> tuple[Float32[np.ndarray, "f e"], Int64[np.ndarray, "f e"]]:
    """The cosine of every a with every b in its best pose, and that pose h:

        max over h of sum_g <a[g], b[gh]> / (||a|| ||b||), both centred over g.

    It is 0 for blocks that do not vary. A symmetric pattern has several best poses: the first of
    those within 1e-5 of the maximum is taken, turns before reflections.
    """
    a_FGD, b_EGD = _unit(a_FGD), _unit(b_EGD)
    most = max(1, CHUNK_BYTES // (4 * max(len(b_EGD), 1) * len(group)))
    cosines = [np.zeros((0, len(b_EGD)), np.float32)]
    poses = [np.zeros((0, len(b_EGD)), np.int64)]
    for start in range(0, len(a_FGD), most):
        c_FEG = correlations(a_FGD[start : start + most], b_EGD, group)
        best_FE = c_FEG.max(axis=2)
        cosines.append(best_FE)
        poses.append((c_FEG >= best_FE[..., None] - 1e-5).argmax(axis=2))
    return np.concatenate(cosines), np.concatenate(poses)


def correlations(
    a_FGD: Float32[np.ndarray, "f g d"], b_EGD: Float32[np.ndarray, "e g d"], group: Dihedral
) -> Float32[np.ndarray, "f e g"]:
    """c(h) = sum_g <a[g], b[gh]> for all pairs and all h, in one batched product.

    With g = (m, k) and h = (m', k') the product gh is (m + m', k + (-1)^m k'). Over the turns this
    is a correlation of a[0] with b[m'], and a reversed one of a[1] with b[m' + 1]. A Fourier
    transform along k turns both into products of F x D and D x E matrices, one per frequency: about
    n / 2 times less arithmetic than all pairs of blocks.
    """
    n, sheets = group.rotations, len(group) // group.rotations
    a, b = (
        fft.rfft(x.reshape(len(x), sheets, n, -1), axis=2).transpose(1, 2, 0, 3)
        for x in (a_FGD, b_EGD)
    )  # [M, W, F, D]
    ends = []
    for m in range(sheets):
        c_WFE = a[0].conj() @ b[m].transpose(0, 2, 1)
        if sheets == 2:
            c_WFE = c_WFE + a[1] @ b[1 - m].transpose(0, 2, 1).conj()
        ends.append(fft.irfft(c_WFE, n, axis=0))
    c_FEG: Float32[np.ndarray, "f e g"] = np.concatenate(ends).transpose(1, 2, 0)
    return c_FEG


@final
@dataclass(frozen=True)
class LatentFamily:
    """Latents that are copies of one pattern. `head` is the member most similar to the others.

    `poses` holds the pose of each member relative to the head, `likeness` the cosine in that pose.
    """

    group: Dihedral
    head: int
    members: tuple[int, ...]
    poses: tuple[int, ...]
    likeness: tuple[float, ...]
    stabiliser: Subgroup | None
    """Of the head; None for the whole group."""
    angle: float = 0.0
    """Direction or axis of the head in degrees clockwise from +x; 0 where it has none."""

    @property
    def period(self) -> float:
        """Degrees by which a turn reproduces the pattern; 0 for an invariant one."""
        return 360 / self.stabiliser.turns if self.stabiliser else 0.0

    @cached_property
    def directions(self) -> list[float]:
        """The direction of each member, in degrees from 0 to below the period."""
        if not self.stabiliser:
            return [0.0 for _ in self.members]
        return [wrapped(directed(self.group, h, self.angle), self.period) for h in self.poses]

    @property
    def hands(self) -> tuple[int, int]:
        """Number of members that are turned copies of the head, and number of mirrored ones. The
        distinction has no meaning for a pattern that a reflection fixes."""
        mirrored = sum(self.group.parts(pose)[0] for pose in self.poses)
        return len(self.poses) - mirrored, mirrored

    @property
    def gap(self) -> Gap | None:
        """The widest stretch without a member on a circle of `period` degrees."""
        if not self.stabiliser:
            return None
        scale = 360 / self.period
        widest = max(gaps([d * scale for d in self.directions]), key=lambda gap: gap.degrees)
        return Gap(widest.start / scale, widest.degrees / scale)


def directed(group: Dihedral, element: int, angle: float) -> float:
    """The direction to which T_g takes the direction `angle`: a + 360 k / n, or -a + 360 k / n for
    a reflection."""
    reflected, turns = group.parts(element)
    return ((-angle if reflected else angle) + group.step * turns) % 360


def wrapped(angle: float, period: float) -> float:
    """An angle modulo a period; within 0.05 degrees below the period it is 0, so that it sorts and
    prints there."""
    rest = angle % period
    return 0.0 if rest >= period - HALF_DIGIT else rest


def clustered(likeness_FF: Float[np.ndarray, "f f"], least: float) -> Int64[np.ndarray, " f"]:
    """The number of each latent's family: average linkage of 1 - likeness, cut where the mean
    likeness of two families falls below `least`."""
    if len(likeness_FF) < 2:
        return np.zeros(len(likeness_FF), np.int64)
    distance_FF = 1 - (likeness_FF.astype(np.float64) + likeness_FF.T) / 2
    np.fill_diagonal(distance_FF, 0)
    tree = linkage(squareform(np.clip(distance_FF, 0, 2), checks=False), "average")
    return np.asarray(fcluster(tree, 1 - least, "distance"), np.int64)


def find_families(
    likeness_FF: Float[np.ndarray, "f f"],
    pose_FF: Int64[np.ndarray, "f f"],
    least: float,
    group: Dihedral,
    stabilisers: Sequence[Subgroup | None],
    angles: Sequence[float | None],
) -> list[LatentFamily]:
    """Families of latents from their `alignment` with themselves, the largest first."""
    numbers = clustered(likeness_FF, least)
    found = []
    for number in np.unique(numbers):
        members = np.flatnonzero(numbers == number)
        head = int(members[likeness_FF[np.ix_(members, members)].sum(axis=1).argmax()])
        found.append(
            LatentFamily(
                group=group,
                head=head,
                members=tuple(int(m) for m in members),
                poses=tuple(int(h) for h in pose_FF[members, head]),
                likeness=tuple(round(float(c), 4) for c in likeness_FF[members, head]),
                stabiliser=stabilisers[head],
                angle=angles[head] or 0.0,
            )
        )
    return sorted(found, key=lambda family: (-len(family.members), family.head))


def pairs_alike(
    blocks_MGD: Float[np.ndarray, "m g d"],
    group: Dihedral,
    inputs_M: Int64[np.ndarray, " m"] | None = None,
) -> Float32[np.ndarray, " p"]:
    """The best cosines of all pairs of different inputs (of all pairs by default), ascending."""
    cosine_MM, _ = alignment(blocks_MGD, blocks_MGD, group)
    first, second = np.triu_indices(len(blocks_MGD), 1)
    if inputs_M is not None:
        differ = inputs_M[first] != inputs_M[second]
        first, second = first[differ], second[differ]
    return np.sort(cosine_MM[first, second])


def _unit(blocks_FGD: Float[np.ndarray, "f g d"]) -> Float32[np.ndarray, "f g d"]:
    """Centred blocks of norm 1; zeros where nothing varies."""
    changing_FGD = centred(blocks_FGD.astype(np.float64))
    power_F = (changing_FGD**2).sum(axis=(1, 2), keepdims=True)
    whole_F = (blocks_FGD.astype(np.float64) ** 2).sum(axis=(1, 2), keepdims=True)
    varies_F = power_F > 1e-10 * whole_F
    scale_F = np.where(varies_F, 1 / np.sqrt(np.where(varies_F, power_F, 1)), 0)
    return np.asarray(changing_FGD * scale_F, np.float32)
