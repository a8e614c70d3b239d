"""The geometry of toy models of superposition: how features share dimensions, and how much they
interfere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

REPRESENTED = 0.5
"""Least ||W_i||^2 of a feature that a model represents."""
EDGE = 0.1
"""Least (W_i . W_j)^2 of an edge of the graph."""
ANTIPODAL = -0.9
"""Largest cosine of an antipodal pair."""
SAME = 0.1
"""Singular values below this fraction of the largest span no dimension of a component."""
TINY = 1e-12


@final
@dataclass(frozen=True)
class Geometry:
    """One model.

    dimensionality_F: fraction of a dimension that each feature has,
                      ||W_i||^2 / sum_j (W^_i . W_j)^2 with W^_i = W_i / ||W_i||
    represented_F:    ||W_i||^2 >= REPRESENTED
    squared:          interference as sum of (W_i . W_j)^2 over i != j
    absolute:         interference as sum of |W_i . W_j| over i != j
    antipodal:        fraction of the represented features with an opposite one
    components:       represented features that edges join, the largest first
    """

    dimensionality_F: Float[np.ndarray, " f"]
    represented_F: Bool[np.ndarray, " f"]
    squared: float
    absolute: float
    antipodal: float
    components: Sequence[Sequence[int]]
    shapes: Sequence[str]


def geometry(W_DF: Float[np.ndarray, "d f"]) -> Geometry:
    """How the features of a model lie in its hidden dimensions."""
    W_DF = W_DF.astype(np.float64)
    gram_FF = W_DF.T @ W_DF
    square_F = np.diag(gram_FF).copy()
    represented_F = square_F >= REPRESENTED
    off_FF = gram_FF - np.diag(square_F)
    norm_F = np.sqrt(np.maximum(square_F, TINY))
    shared_F = (gram_FF**2).sum(1) / np.maximum(square_F, TINY)
    cosine_FF = off_FF / np.outer(norm_F, norm_F)
    opposite_F = (cosine_FF[:, represented_F] < ANTIPODAL).any(1)[represented_F]
    found = components(off_FF**2, represented_F)
    return Geometry(
        dimensionality_F=square_F / np.maximum(shared_F, TINY),
        represented_F=represented_F,
        squared=float((off_FF**2).sum()),
        absolute=float(np.abs(off_FF).sum()),
        antipodal=float(opposite_F.mean()) if len(opposite_F) else 0.0,
        components=found,
        shapes=[shape(W_DF[:, list(part)]) for part in found],
    )


def components(
    weight_FF: Float[np.ndarray, "f f"], represented_F: Bool[np.ndarray, " f"]
) -> list[tuple[int, ...]]:
    """Represented features that are joined by edges of weight EDGE or more, directly or through
    others; the largest component first."""
    left, found = set(np.flatnonzero(represented_F).tolist()), []
    joined_FF = weight_FF >= EDGE
    while left:
        part, todo = set[int](), [min(left)]
        while todo:
            i = todo.pop()
            if i in left:
                left.remove(i)
                part.add(i)
                todo.extend(np.flatnonzero(joined_FF[i]).tolist())
        found.append(tuple(sorted(part)))
    return sorted(found, key=lambda part: (-len(part), part))


def shape(W_DK: Float[np.ndarray, "d k"]) -> str:
    """The name of a component of k features that span d dimensions."""
    values = np.linalg.svd(W_DK, compute_uv=False)
    k, d = W_DK.shape[1], int((values > SAME * values[0]).sum())
    known = {
        (1, 1): "alone",
        (2, 1): "antipodal pair",
        (2, 2): "oblique pair",
        (3, 2): "triangle",
        (4, 3): "tetrahedron",
        (5, 2): "pentagon",
    }
    return known.get((k, d), f"{k} in {d} dimensions" if k < 10 else "large")


def random_interference(W_DF: Float[np.ndarray, "d f"]) -> float:
    """Expected sum of (W_i . W_j)^2 over i != j if features kept their norms and pointed in random
    directions: sum ||W_i||^2 ||W_j||^2 / D."""
    square_F = (W_DF.astype(np.float64) ** 2).sum(0)
    return float((square_F.sum() ** 2 - (square_F**2).sum()) / len(W_DF))
