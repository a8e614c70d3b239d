"""Stabilisers of the latents of a group crosscoder, from their transform blocks.

Block g of the input of a pattern p is x(p)[g] = a(T_g p), so the input of the pattern T_h p is
a(T_g T_h p) = x(p)[gh]. If T_s fixes the pattern, then x(p)[gs] = x(p)[g] for all g, and a latent D
that represents the pattern has the same property: its stabiliser is the set of elements whose
multiplication *on the right* leaves D unchanged. (Multiplication on the left gives other patterns:
D[sg] = D[g] is a symmetry of the units' responses, and says nothing about the pattern.) All
measures come from the autocorrelation over the group,

    r(s) = sum_g <D[g], D[gs]>,

whose value at the identity is the power. All functions take blocks [F, G, D] and compute in
float64.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.stats import binom

from tendril.data.group.dihedral import Dihedral

from .subgroups import Subgroup, averaging, subgroups

CHUNK = 256  # latents whose G x G products are held in memory at a time
LOSS = 0.05  # fraction of the power that a subgroup may lose against a smaller one inside it
CONFIDENCE = 0.95  # that no more draws of a null pass its limit than should
CLASSES = ("invariant", "many turns", "both", "half turn", "one reflection", "chiral", "no turn")


def centred(blocks_FGD: Float[np.ndarray, "f g d"]) -> Float[np.ndarray, "f g d"]:
    """Blocks minus their mean over g: the part that changes with the transformation."""
    changing_FGD: Float[np.ndarray, "f g d"] = blocks_FGD - blocks_FGD.mean(axis=1, keepdims=True)
    return changing_FGD


def cosines(blocks_FGD: Float[np.ndarray, "f g d"]) -> Float64[np.ndarray, "f g g"]:
    """Cosine of every pair of blocks of each latent; 0 where a block is zero."""
    gram_FGG = _gram(blocks_FGD)
    norm_FG = np.sqrt(np.einsum("fgg->fg", gram_FGG))
    inverse_FG = np.divide(1, norm_FG, out=np.zeros_like(norm_FG), where=norm_FG > 0)
    cosine_FGG: Float64[np.ndarray, "f g g"] = (
        gram_FGG * inverse_FG[:, :, None] * inverse_FG[:, None]
    )
    return cosine_FGG


def autocorrelation(
    blocks_FGD: Float[np.ndarray, "f g d"], group: Dihedral
) -> Float64[np.ndarray, "f g"]:
    """r(s) = sum_g <D[g], D[gs]> of each latent; r(0) is the power ||D||^2."""
    everyone = np.arange(len(group))[:, None]
    parts = [np.zeros((0, len(group)))]
    for start in range(0, len(blocks_FGD), CHUNK):
        gram_FGG = _gram(blocks_FGD[start : start + CHUNK])
        parts.append(gram_FGG[:, everyone, group.table_GG].sum(axis=1))
    return np.concatenate(parts)


@final
@dataclass(frozen=True)
class Symmetry:
    """Symmetry measures of F latents.

    variation: fraction of the power ||D||^2 outside the mean over g; 0 for a latent that no
        transformation changes
    fractions: fraction of the *centred* power in the fixed space of each subgroup, from 0 to 1:
        ||P_H Dc||^2 / ||Dc||^2 = mean over s in H of r(s) / r(0); 0 where nothing varies
    irreps: fraction of the whole power in each real irreducible representation, by name
    correlation: r(s) / r(0) of the centred blocks
    """

    group: Dihedral
    subgroups: tuple[Subgroup, ...]
    variation: Float64[np.ndarray, " f"]
    fractions: Float64[np.ndarray, "f h"]
    irreps: Mapping[str, Float64[np.ndarray, " f"]]
    correlation: Float64[np.ndarray, "f g"]

    def __len__(self) -> int:
        return len(self.variation)

    @property
    def kinds(self) -> list[str]:
        """The kinds of subgroups: C1, D1, C2 ..."""
        return list(dict.fromkeys(subgroup.kind for subgroup in self.subgroups))

    def of_kind(self, kind: str) -> tuple[Float64[np.ndarray, " f"], Int64[np.ndarray, " f"]]:
        """The largest fraction among the subgroups of a kind, over all axes, and which subgroup
        has it."""
        places = np.array([i for i, h in enumerate(self.subgroups) if h.kind == kind])
        best_F = self.fractions[:, places].argmax(axis=1)
        return self.fractions[np.arange(len(self)), places[best_F]], places[best_F]


def measure(blocks_FGD: Float[np.ndarray, "f g d"], group: Dihedral) -> Symmetry:
    """Measure the symmetry of each latent from its autocorrelation.

    The projection onto a real irreducible representation rho with character chi is
    D -> (chi(1) / <chi, chi>) / G sum_s chi(s) D[gs] (Serre, Linear representations, 2.6), so its
    power is the same sum over r(s).
    """
    r_FG = autocorrelation(blocks_FGD, group)
    power_F = r_FG[:, 0].copy()
    mean_F = r_FG.mean(axis=1)  # the power of the mean, G ||mean||^2
    # blocks that do not vary have a centred power of rounding errors, which is set to 0
    centred_FG = r_FG - mean_F[:, None]
    varies_F = centred_FG[:, 0] > 1e-10 * power_F
    correlation_FG = _over(centred_FG, np.where(varies_F, centred_FG[:, 0], 0))
    chosen = subgroups(group)
    irreps = {}
    for name, chi_G in group.characters.items():
        factor = chi_G[0] / (chi_G @ chi_G)  # <chi, chi> is a mean over G, which cancels 1 / G
        irreps[name] = np.clip(_over((r_FG @ chi_G * factor)[:, None], power_F)[:, 0], 0, 1)
    return Symmetry(
        group=group,
        subgroups=tuple(chosen),
        variation=np.where(varies_F, _over(centred_FG[:, :1], power_F)[:, 0], 0.0),
        fractions=np.clip(correlation_FG @ averaging(chosen).T, 0, 1),
        irreps=irreps,
        correlation=correlation_FG,
    )


def relabelled(
    blocks_FGD: Float[np.ndarray, "f g d"], rng: np.random.Generator
) -> Float[np.ndarray, "f g d"]:
    """Each latent's blocks in a random order: a null that destroys the group structure only."""
    order_FG = rng.permuted(np.tile(np.arange(blocks_FGD.shape[1]), (len(blocks_FGD), 1)), axis=1)
    return np.take_along_axis(blocks_FGD, order_FG[:, :, None], axis=1)


@final
@dataclass(frozen=True)
class Null:
    """Null distributions of the largest fraction for each kind of subgroup."""

    fractions: Mapping[str, Mapping[str, Float64[np.ndarray, " m"]]]
    """By name of the null, then by kind of subgroup; values in ascending order."""

    def limits(self, quantile: float, without: Sequence[str] = ()) -> dict[str, float]:
        """The value of each kind from which a draw from any of the nulls lies with a probability of
        at most 1 - `quantile`, at a confidence of 95 %: the largest upper tolerance limit (Wilks,
        1941) of the nulls, an order statistic; the maximum of fewer than 59 values for 0.95. Nulls
        named in `without` are left out."""
        limits = {}
        nulls = [null for name, null in self.fractions.items() if name not in without]
        for kind in next(iter(self.fractions.values())):
            chance = [0.0]
            for values in (null[kind] for null in nulls if len(null[kind])):
                place = int(binom.isf(1 - CONFIDENCE, len(values), quantile))  # counted from 0
                chance.append(float(values[min(place, len(values) - 1)]))
            limits[kind] = max(chance)
        return limits | {"C1": 0.0}

    def rank(self, null: str, kind: str, fractions_F: Float[np.ndarray, " f"]) -> np.ndarray:
        """The fraction of a null's values below each value, from 0 to 1."""
        by_chance = self.fractions[null][kind]
        below_F: np.ndarray = np.searchsorted(by_chance, fractions_F) / max(len(by_chance), 1)
        return below_F


def null_of(blocks: Mapping[str, Float[np.ndarray, "f g d"]], group: Dihedral) -> Null:
    """Null distributions from sets of blocks (orbits of raw anchors, relabelled blocks), by name.

    Blocks that do not vary are left out.
    """
    fractions = {}
    for name, blocks_FGD in blocks.items():
        symmetry = measure(blocks_FGD, group)
        varies_F = symmetry.variation > 0
        fractions[name] = {k: np.sort(symmetry.of_kind(k)[0][varies_F]) for k in symmetry.kinds}
    return Null(fractions)


def estimate_stabilisers(
    symmetry: Symmetry,
    limits: Mapping[str, float],
    flat: float,
    aligned: Mapping[str, Bool[np.ndarray, " f"]] | None = None,
) -> list[Subgroup | None]:
    """The stabiliser of each latent; None (the whole group) where the variation is at most `flat`.

    It is the largest subgroup whose fraction reaches the limit of its kind, for which `aligned`
    (where given for the kind) is true, and that explains the blocks as well as the smaller
    subgroups inside it do. Among subgroups of equal size the one of
    larger fraction is taken.

    A curve with a faint opening has most of its power in the fixed space of a line's stabiliser.
    Therefore a subgroup H may lose only a little of the power that a smaller subgroup K < H keeps:
    at most LOSS, or twice what noise would lose whose density per dimension is that of the power
    outside K, which is (1 - fraction_K) (G / |K| - G / |H|) / (G - G / |K|).
    """
    limit_H = np.array([limits[h.kind] for h in symmetry.subgroups])
    order_H = np.array([len(h) for h in symmetry.subgroups])
    passes_FH: Bool[np.ndarray, "f h"] = symmetry.fractions >= limit_H
    for i, whole in enumerate(symmetry.subgroups):
        if aligned and whole.kind in aligned:
            passes_FH[:, i] &= aligned[whole.kind]
    size = len(symmetry.group)
    for i, whole in enumerate(symmetry.subgroups):
        for j, part in enumerate(symmetry.subgroups):
            if len(part) == 1 or not set(part.elements) < set(whole.elements):
                continue
            dense_F = (1 - symmetry.fractions[:, j]) / (size - size / len(part))
            noise_F = dense_F * (size / len(part) - size / len(whole))
            lost_F = symmetry.fractions[:, j] - symmetry.fractions[:, i]
            passes_FH[:, i] &= lost_F <= np.maximum(LOSS, 2 * noise_F)
    score_FH = np.where(passes_FH, order_H + 0.5 * symmetry.fractions, -1)
    best_F = score_FH.argmax(axis=1)
    return [
        None if flat_enough else symmetry.subgroups[best]
        for best, flat_enough in zip(best_F, symmetry.variation <= flat, strict=True)
    ]


def class_of(stabiliser: Subgroup | None) -> str:
    """The class of symmetry, one of CLASSES.

    invariant: everything fixes it, as a circle. both: a half turn and two reflections, as a line.
    one reflection: a curve, but also an edge, a corner or the end of a line. many turns: three or
    more. chiral: nothing fixes it (`no turn` in a group without reflections, which cannot tell).
    """
    if stabiliser is None:
        return "invariant"
    if stabiliser.turns > 2:
        return "many turns"
    if stabiliser.turns == 2:
        return "half turn" if stabiliser.axis is None else "both"
    if stabiliser.axis is not None:
        return "one reflection"
    return "chiral" if stabiliser.group.reflections else "no turn"


def axis_angle(symmetry: Symmetry, latent: int, stabiliser: Subgroup | None) -> float | None:
    """The angle of the first axis of D_d in degrees clockwise from +x, from 0 to 180 / d.

    Neighbouring axes of the group are 180 / n degrees apart. Between them the angle is the
    maximum of the parabola through their fractions. Blocks do not tell the two directions of an
    axis apart, so they do not say on which side the bulge is.
    """
    if stabiliser is None or stabiliser.axis is None:
        return None
    apart, count = 180 / symmetry.group.rotations, symmetry.group.rotations // stabiliser.turns
    at = stabiliser.axis
    if count < 3:
        return apart * at
    by_axis = {
        h.axis: float(symmetry.fractions[latent, i])
        for i, h in enumerate(symmetry.subgroups)
        if h.kind == stabiliser.kind
    }
    before, top, after = (by_axis[(at + step) % count] for step in (-1, 0, 1))
    bend = 2 * top - before - after
    shift = (after - before) / (2 * bend) if bend > 0 else 0.0
    return apart * (at + min(max(shift, -0.5), 0.5)) % (apart * count)


def class_counts(classes: Sequence[str]) -> dict[str, int]:
    """Number of latents of each class that occurs, in the order of CLASSES."""
    return {name: classes.count(name) for name in CLASSES if name in classes}


def _gram(blocks_FGD: Float[np.ndarray, "f g d"]) -> Float64[np.ndarray, "f g g"]:
    blocks = blocks_FGD.astype(np.float64)
    gram_FGG: Float64[np.ndarray, "f g g"] = blocks @ blocks.transpose(0, 2, 1)
    return gram_FGG


def _over(above_FX: np.ndarray, below_F: np.ndarray) -> np.ndarray:
    """`above / below` row by row; 0 where `below` is 0."""
    below_FX = np.broadcast_to(below_F[:, None], above_FX.shape)
    return np.asarray(
        np.divide(above_FX, below_FX, out=np.zeros_like(above_FX), where=below_FX > 0)
    )
