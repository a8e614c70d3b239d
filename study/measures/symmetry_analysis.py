"""Symmetry analysis of a run: stabilisers against null distributions, and families of copies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from tendril.data.group.dihedral import Dihedral
from tendril.data.order import held_out
from tendril.data.store.reader import Store

from .axis_alignment import phase_randomised
from .false_positives import FalsePositives, Rule, false_positives
from .latent_families import LatentFamily, alignment, find_families, pairs_alike
from .stabilisers import (
    Null,
    Symmetry,
    axis_angle,
    class_counts,
    class_of,
    measure,
    null_of,
    relabelled,
)
from .subgroups import Subgroup
from .symmetry_thresholds import SymmetryThresholds

MOST = 4096  # latents that are compared with one another: those that fire most often
PAIRED = 400  # raw anchors whose pairs are the null distribution of `alike`
CHUNKS = 64  # of the store, from which raw anchors come
PAIR_QUANTILE, LEAST_ALIKE = 0.99, 0.5
RAW, RELABELLED = "raw anchors", "relabelled"
"""Names of the two nulls of fractions."""
RAW_CHIRAL, CHIRAL = "raw anchors with random phases", "latents with random phases"
"""Names of the chiral blocks whose classes are counted, beside RAW."""


@final
@dataclass(frozen=True)
class SymmetryAnalysis:
    """What the blocks of one run say. Arrays hold the latents that fire: row i is latent
    `latents[i]` of the run."""

    run: str
    group: Dihedral
    tied: bool
    total: int
    """Latents of the run, those that never fire included."""
    latents: Int64[np.ndarray, " f"]
    frequency: Float32[np.ndarray, " f"]
    blocks: Float32[np.ndarray, "f g d"]
    symmetry: Symmetry
    null: Null
    chance: Mapping[str, float]
    """By kind of subgroup: the fraction that the nulls stay below."""
    limits: Mapping[str, float]
    """By kind of subgroup: the fraction from which a symmetry counts, `chance` or more."""
    axis_p: Mapping[str, Float[np.ndarray, " f"]]
    """By kind of subgroup: the P value of each latent's axes, from `axis_alignment`."""
    rates: tuple[FalsePositives, ...]
    """Classes of blocks that should have none: raw anchors that the nulls have not seen, and chiral
    blocks with the angular spectra of these and of the latents."""
    stabilisers: tuple[Subgroup | None, ...]
    likeness: Float32[np.ndarray, "f f"]
    families: tuple[LatentFamily, ...]
    """The largest first; members are rows."""
    alike: float
    about: str = ""
    """What kind of run it is, for people: its control, if it is one, and its seed."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """The run's result: fvu, fvu_train, l0, dead, parameters, seconds; empty if unknown."""

    @cached_property
    def classes(self) -> list[str]:
        """The class of symmetry of each row."""
        return [class_of(stabiliser) for stabiliser in self.stabilisers]

    @cached_property
    def axes(self) -> list[float | None]:
        """The first axis of each row, in degrees; None where it has none."""
        return [axis_angle(self.symmetry, i, h) for i, h in enumerate(self.stabilisers)]

    @cached_property
    def family_of(self) -> dict[int, int]:
        """Row -> number of its family; the largest is 0."""
        return {row: i for i, family in enumerate(self.families) for row in family.members}

    def counts(self) -> dict[str, int]:
        """Number of latents of each class."""
        return class_counts(self.classes)

    def fraction(self, row: int) -> float:
        """The fraction of a row's centred power in the fixed space of its stabiliser; 1 for an
        invariant latent, and for one that nothing fixes."""
        stabiliser = self.stabilisers[row]
        if stabiliser is None:
            return 1.0
        return float(self.symmetry.fractions[row, self.symmetry.subgroups.index(stabiliser)])

    def rank(self, row: int) -> float | None:
        """The fraction of raw anchors that lie below a row, for the kind of its stabiliser; None
        where nothing or everything fixes the row, so that there is no fraction to compare."""
        stabiliser = self.stabilisers[row]
        if stabiliser is None or len(stabiliser) == 1:
            return None
        best_F, _ = self.symmetry.of_kind(stabiliser.kind)
        return float(self.null.rank(RAW, stabiliser.kind, best_F[row : row + 1])[0])

    def p_of(self, row: int) -> float | None:
        """The P value of the axes of a row's stabiliser; None where it has none that is tested."""
        stabiliser = self.stabilisers[row]
        p_F = self.axis_p.get(stabiliser.kind) if stabiliser else None
        return None if p_F is None else float(p_F[row])


def analyse_blocks(
    run: str,
    blocks_FGD: Float[np.ndarray, "f g d"],
    frequency_F: Float[np.ndarray, " f"],
    group: Dihedral,
    anchors_MGD: Float[np.ndarray, "m g d"],
    inputs_M: Int64[np.ndarray, " m"],
    thresholds: SymmetryThresholds,
    *,
    tied: bool = False,
) -> SymmetryAnalysis:
    """Analyse the transform blocks of all latents of a run.

    `anchors_MGD` are orbits of raw activations, the null distribution, and `inputs_M` the inputs
    that they come from. Latents that never fire, or whose blocks are zero, are left out; of more
    than MOST latents those that fire most often are kept.
    """
    alive_F = (frequency_F > 0) & (np.abs(blocks_FGD).max(axis=(1, 2), initial=0) > 0)
    rows = np.flatnonzero(alive_F)
    if len(rows) > MOST:
        rows = np.sort(rows[np.argsort(-frequency_F[rows], kind="stable")[:MOST]])
    kept_FGD = np.ascontiguousarray(blocks_FGD[rows], np.float32)
    symmetry = measure(kept_FGD, group)
    own_M = halves(inputs_M)
    mixed_FGD = relabelled(kept_FGD, np.random.default_rng(0))
    nulls = {RAW: anchors_MGD[own_M]} | ({RELABELLED: mixed_FGD} if len(rows) else {})
    null = null_of(nulls, group)
    chance = null.limits(thresholds.quantile, (RAW,) if thresholds.raw_null == "no" else ())
    limits = {k: max(v, thresholds.least) if k != "C1" else 0.0 for k, v in chance.items()}
    rule = Rule(limits, 1 - thresholds.quantile, thresholds.flat)
    stabilisers, axis_p = rule.stabilisers(symmetry)
    axes = [axis_angle(symmetry, i, h) for i, h in enumerate(stabilisers)]
    few = slice(0, PAIRED)
    pairs = pairs_alike(anchors_MGD[few], group, inputs_M[few])
    alike = thresholds.alike or max(LEAST_ALIKE, _quantile(pairs, PAIR_QUANTILE))
    likeness_FF, pose_FF = alignment(kept_FGD, kept_FGD, group)
    return SymmetryAnalysis(
        run=run,
        group=group,
        tied=tied,
        total=len(blocks_FGD),
        latents=rows.astype(np.int64),
        frequency=np.asarray(frequency_F[rows], np.float32),
        blocks=kept_FGD,
        symmetry=symmetry,
        null=null,
        chance=chance,
        limits=limits,
        axis_p=axis_p,
        rates=rates_of(anchors_MGD[~own_M], kept_FGD, group, rule),
        stabilisers=tuple(stabilisers),
        likeness=likeness_FF,
        families=tuple(find_families(likeness_FF, pose_FF, alike, group, stabilisers, axes)),
        alike=alike,
    )


def halves(inputs_M: Int64[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """True for the anchors of every other input (of a single input, for every other anchor): those
    of the nulls. The others tell how often chance passes."""
    _, number_M = np.unique(inputs_M, return_inverse=True)
    if number_M.max(initial=0) == 0:
        number_M = np.arange(len(inputs_M))
    even_M: Bool[np.ndarray, " m"] = number_M % 2 == 0
    return even_M


def rates_of(
    unseen_MGD: Float[np.ndarray, "m g d"],
    latents_FGD: Float[np.ndarray, "f g d"],
    group: Dihedral,
    rule: Rule,
) -> tuple[FalsePositives, ...]:
    """Classes of raw anchors that the nulls have not seen, and of chiral blocks."""
    sources = {RAW: unseen_MGD}
    if group.reflections:
        rng = np.random.default_rng(1)
        sources[RAW_CHIRAL] = phase_randomised(unseen_MGD, group, rng)
        sources[CHIRAL] = phase_randomised(latents_FGD, group, rng)
    return tuple(
        false_positives(name, measure(blocks, group), rule) for name, blocks in sources.items()
    )


def raw_anchors(
    store: Store, site: str, count: int, aside: float = 0.0
) -> tuple[Float32[np.ndarray, "m g d"], Int64[np.ndarray, " m"]]:
    """Orbits of up to `count` random rows from a few chunks of a store, and the input of each. The
    fraction `aside` of the inputs, those that training holds out, is left out."""
    rng = np.random.default_rng(0)
    there = store.column("valid").astype(bool) & ~held_out(store.column("input"), aside)
    valid = np.flatnonzero(there)
    chunks = np.unique(valid // store.chunk_rows)
    chosen = rng.permutation(chunks)[:CHUNKS]
    pool = valid[np.isin(valid // store.chunk_rows, chosen)]
    rows = np.sort(rng.permutation(pool)[:count])
    order = rng.permutation(len(rows))  # so that the first few come from many inputs
    return store.read(site, rows)[order], store.column("input")[rows][order].astype(np.int64)


def _quantile(values: Sequence[float] | np.ndarray, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else 0.0
