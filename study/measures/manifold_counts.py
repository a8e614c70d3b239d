"""Which manifold each latent of a dictionary belongs to, where the manifolds are known."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int64

HOLDS = 0.5
"""Least part of the squared norm of a decoder row that lies in a manifold's subspace."""


@final
@dataclass(frozen=True)
class Counts:
    """latents_F: for each manifold, its latents n_i; `none`: latents that belong to none."""

    latents_F: Int64[np.ndarray, " f"]
    none: int

    @property
    def found(self) -> int:
        """D, the manifolds with at least one latent."""
        return int((self.latents_F > 0).sum())


def count_latents(
    rows_SD: Float[np.ndarray, "s d"], bases_FdD: Float[np.ndarray, "f k d"]
) -> Counts:
    """Each latent belongs to the subspace that holds most of its squared norm, if it holds more
    than HOLDS of it. `bases_FdD` are orthonormal."""
    unit_SD = rows_SD / np.maximum(np.linalg.norm(rows_SD, axis=1, keepdims=True), 1e-30)
    best_S = np.zeros(len(rows_SD))
    manifold_S = np.zeros(len(rows_SD), np.int64)
    for f, basis_dD in enumerate(bases_FdD):
        part_S = ((unit_SD @ basis_dD.T) ** 2).sum(axis=1)
        better_S = part_S > best_S
        best_S[better_S], manifold_S[better_S] = part_S[better_S], f
    belongs_S = best_S > HOLDS
    counts = np.bincount(manifold_S[belongs_S], minlength=len(bases_FdD))
    return Counts(counts.astype(np.int64), int((~belongs_S).sum()))
