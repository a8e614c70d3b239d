"""A run of a group crosscoder, read: what fixes its latents, against chance, and its families."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.sparse.linalg import eigsh

from tendril.data.group.dihedral import Dihedral
from tendril.data.store.reader import Store

from ..measures.latent_families import Family, alignment, families, pairs_alike
from ..measures.stabilisers import (
    Null,
    Symmetry,
    axis_angle,
    class_counts,
    class_of,
    estimated,
    measure,
    null_of,
    relabelled,
)
from ..measures.subgroups import Subgroup
from .config import SymmetryConfig

MOST = 4096  # latents that are compared with one another, those that fire most often
PAIRED = 400  # raw anchors whose pairs are the null of families
CHUNKS = 16  # of the store, that raw anchors come from
NEIGHBOURS = 15  # of UMAP
PAIR_QUANTILE, LEAST_ALIKE = 0.99, 0.5
RAW, MIXED = "raw anchors", "relabelled"


@final
@dataclass(frozen=True)
class Reading:
    """What the blocks of one run say. Latents are numbered as in the run; arrays hold those
    alive, `latents[i]` being the number of row i."""

    run: str
    group: Dihedral
    tied: bool
    total: int
    latents: Int64[np.ndarray, " f"]
    frequency: Float32[np.ndarray, " f"]
    blocks: Float32[np.ndarray, "f g d"]
    symmetry: Symmetry
    null: Null
    thresholds: dict[str, float]
    stabilisers: tuple[Subgroup | None, ...]
    likeness: Float32[np.ndarray, "f f"]
    families: tuple[Family, ...]
    """Of row numbers, not of latents' own."""
    alike: float
    about: str = ""
    """What kind of run it is, for people: its control, if it is one, and its seed."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """What its training ended in: fvu, fvu_train, l0, dead, parameters, seconds; empty where that
    is not known."""

    @cached_property
    def classes(self) -> list[str]:
        """In words, one a latent."""
        return [class_of(stabiliser) for stabiliser in self.stabilisers]

    @cached_property
    def axes(self) -> list[float | None]:
        """The first axis of each, in degrees."""
        return [axis_angle(self.symmetry, i, h) for i, h in enumerate(self.stabilisers)]

    @cached_property
    def family_of(self) -> dict[int, int]:
        """Row -> number of its family, the largest being 0."""
        return {row: i for i, family in enumerate(self.families) for row in family.members}

    def counts(self) -> dict[str, int]:
        """Latents of each class."""
        return class_counts(self.classes)

    def share(self, row: int) -> float:
        """The share of the centred power in the fixed space of its stabiliser; 1 for what does
        not vary and for what nothing fixes."""
        stabiliser = self.stabilisers[row]
        if stabiliser is None:
            return 1.0
        return float(self.symmetry.shares[row, self.symmetry.subgroups.index(stabiliser)])

    def rank(self, row: int) -> float | None:
        """The part of raw anchors whose share is smaller, for the kind of its stabiliser; None
        where nothing or everything fixes it, which is no share to compare."""
        stabiliser = self.stabilisers[row]
        if stabiliser is None or len(stabiliser) == 1:
            return None
        best_F, _ = self.symmetry.of_kind(stabiliser.kind)
        return float(self.null.rank(RAW, stabiliser.kind, best_F[row : row + 1])[0])


def read_blocks(
    run: str,
    blocks_FGD: Float[np.ndarray, "f g d"],
    frequency_F: Float[np.ndarray, " f"],
    group: Dihedral,
    anchors_MGD: Float[np.ndarray, "m g d"],
    inputs_M: Int64[np.ndarray, " m"],
    config: SymmetryConfig,
    *,
    tied: bool = False,
) -> Reading:
    """Everything but the images: blocks of all latents, and raw anchors to judge them by.

    Latents that never fire, or whose blocks are zero, are left out; of more than MOST those
    that fire most often are kept.
    """
    alive_F = (frequency_F > 0) & (np.abs(blocks_FGD).max(axis=(1, 2), initial=0) > 0)
    rows = np.flatnonzero(alive_F)
    if len(rows) > MOST:
        rows = np.sort(rows[np.argsort(-frequency_F[rows], kind="stable")[:MOST]])
    kept_FGD = np.ascontiguousarray(blocks_FGD[rows], np.float32)
    symmetry = measure(kept_FGD, group)
    mixed_FGD = relabelled(kept_FGD, np.random.default_rng(0))
    nulls = {RAW: anchors_MGD} | ({MIXED: mixed_FGD} if len(rows) else {})
    null = null_of(nulls, group)
    thresholds = null.thresholds(config.quantile, config.least, config.most)
    stabilisers = estimated(symmetry, thresholds, config.flat)
    axes = [axis_angle(symmetry, i, h) for i, h in enumerate(stabilisers)]
    few = slice(0, PAIRED)
    pairs = pairs_alike(anchors_MGD[few], group, inputs_M[few])
    alike = config.alike or max(LEAST_ALIKE, _quantile(pairs, PAIR_QUANTILE))
    likeness_FF, pose_FF = alignment(kept_FGD, kept_FGD, group)
    return Reading(
        run=run,
        group=group,
        tied=tied,
        total=len(blocks_FGD),
        latents=rows.astype(np.int64),
        frequency=np.asarray(frequency_F[rows], np.float32),
        blocks=kept_FGD,
        symmetry=symmetry,
        null=null,
        thresholds=thresholds,
        stabilisers=tuple(stabilisers),
        likeness=likeness_FF,
        families=tuple(families(likeness_FF, pose_FF, alike, group, stabilisers, axes)),
        alike=alike,
    )


def raw_anchors(
    store: Store, site: str, count: int
) -> tuple[Float32[np.ndarray, "m g d"], Int64[np.ndarray, " m"]]:
    """Orbits of some rows of a store, drawn from a few chunks, and the inputs they are of."""
    rng = np.random.default_rng(0)
    valid = np.flatnonzero(store.column("valid"))
    chunks = np.unique(valid // store.chunk_rows)
    chosen = rng.permutation(chunks)[:CHUNKS]
    pool = valid[np.isin(valid // store.chunk_rows, chosen)]
    rows = np.sort(rng.permutation(pool)[:count])
    order = rng.permutation(len(rows))  # so that the first few are of many inputs
    return store.read(site, rows)[order], store.column("input")[rows][order].astype(np.int64)


def scaled_map(likeness_FF: Float[np.ndarray, "f f"]) -> Float[np.ndarray, "f 2"]:
    """Latents on a plane by classical scaling of their distances 1 - likeness: the two leading
    principal coordinates (Torgerson, 1952)."""
    count = len(likeness_FF)
    if count < 4:
        return np.zeros((count, 2))
    square_FF = (1 - likeness_FF.astype(np.float64)).clip(0) ** 2
    np.fill_diagonal(square_FF, 0)
    mean_F = square_FF.mean(axis=0)
    inner_FF = -0.5 * (square_FF - mean_F - mean_F[:, None] + mean_F.mean())
    values_2, at_F2 = eigsh(inner_FF, k=2, which="LA", v0=np.cos(np.arange(count)))
    return np.asarray(at_F2 * np.sqrt(values_2.clip(0)))[:, ::-1]


def umap_map(likeness_FF: Float[np.ndarray, "f f"], seed: int = 0) -> Float[np.ndarray, "f 2"]:
    """Latents on a plane by UMAP of their distances 1 - likeness (McInnes et al., 1802.03426): what
    is near stays near, and how far apart the rest lies says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba's and of umap's own, about their threads
        from umap import UMAP

        drawn = UMAP(
            n_components=2,
            metric="precomputed",
            n_neighbors=min(NEIGHBOURS, len(likeness_FF) - 1),
            random_state=seed,
            n_jobs=1,
        )
        distance_FF = (1 - likeness_FF.astype(np.float64)).clip(0)
        np.fill_diagonal(distance_FF, 0)
        found: np.ndarray = drawn.fit_transform((distance_FF + distance_FF.T) / 2)
    return found.astype(np.float64)


def _quantile(values: Sequence[float] | np.ndarray, q: float) -> float:
    return float(np.quantile(values, q)) if len(values) else 0.0
