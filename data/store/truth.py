"""The truth of a synthetic store: which features make up each row, and how.

    row r = sum_k sum_j c[r, k, j] S[f[r, k], j]

S are the directions of the features, f the numbers of the features that are on in a row, and c
their coordinates. f and c are sites of the store beside its rows, so they are written, resumed and
verified like rows; S is an array of its own. FORMAT.md describes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from ..errors import ConfigError

if TYPE_CHECKING:
    from .reader import Store

TRUTH = "truth"
DIRECTIONS = "directions"
TRUTH_AXES = ("feature", "coordinate", "channel")
ROWS, FEATURES, COORDINATES = "rows", "truth.features", "truth.coordinates"
"""The sites of a synthetic store."""
NONE = -1
"""In place of a feature's number where fewer features are on than there are places."""
Constants = Mapping[str, Float32[np.ndarray, "f d w"]]


@final
@dataclass(frozen=True)
class Truth:
    """The truth of a store.

    directions_FdD: S, the basis of each feature's subspace; d is 1 for a direction
    """

    store: "Store"
    directions_FdD: Float32[np.ndarray, "f d w"]

    @property
    def parents_F(self) -> Int64[np.ndarray, " f"]:
        """The parent of each feature; NONE where it has none."""
        subject, names = self.store.spec["subject"], ("roots", "children", "depth")
        roots, children, depth = (int(subject.get(name, 0)) for name in names)
        return tree_parents(len(self.directions_FdD), roots, children, depth)

    def features(self, rows: slice | Int[np.ndarray, " n"]) -> Int64[np.ndarray, "n k"]:
        """Numbers of the features that are on in some rows; NONE in places that are left."""
        return self.store.read(FEATURES, rows).astype(np.int64)

    def coordinates(self, rows: slice | Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n k d"]:
        """Their coordinates; 0 in places that are left."""
        found = self.store.read(COORDINATES, rows)
        return found.reshape(len(found), -1, self.directions_FdD.shape[1])

    def rows(self, rows: slice | Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n w"]:
        """The rows that follow from the truth; bit for bit those of the store."""
        return summed(self.directions_FdD, self.features(rows), self.coordinates(rows))


def open_truth(store: "Store") -> Truth:
    """The truth of a store. Raises ConfigError if it has none."""
    if not {FEATURES, COORDINATES} <= set(store.sites):
        raise ConfigError(
            f"{store.name} holds no truth: its rows were made by a network. Make a store whose "
            "features are known with `tendril harvest synthetic`."
        )
    return Truth(store, store.arrays.constant(f"{TRUTH}/{DIRECTIONS}"))


def tree_parents(features: int, roots: int, children: int, depth: int) -> Int64[np.ndarray, " f"]:
    """The parent of each feature; NONE for roots of trees and features of no tree.

    The first `roots` features are roots; their children follow generation by generation, so that
    children are rarer than their parents. Other features come last.
    """
    found = np.full(features, NONE, np.int64)
    generation, number = range(roots), roots
    for _ in range(depth if roots else 0):
        begin = number
        for parent in generation:
            for _ in range(children):
                if number < features:
                    found[number] = parent
                    number += 1
        generation = range(begin, number)
    return found


def summed(
    directions_FdD: Float32[np.ndarray, "f d w"],
    features_NK: Int64[np.ndarray, "n k"],
    coordinates_NKd: Float32[np.ndarray, "n k d"],
) -> Float32[np.ndarray, "n w"]:
    """The sum, in float64 and in the order of places and coordinates, rounded to float32.

    Products and sums are single operations of IEEE 754, so that every machine gets the same bits.
    """
    rows_ND: Float64[np.ndarray, "n w"] = np.zeros((len(features_NK), directions_FdD.shape[2]))
    for k in range(features_NK.shape[1]):
        on_M = np.flatnonzero(features_NK[:, k] >= 0)
        for j in range(directions_FdD.shape[1]):
            one_MD = directions_FdD[features_NK[on_M, k], j].astype(np.float64)
            rows_ND[on_M] += one_MD * coordinates_NKd[on_M, k, j, None].astype(np.float64)
    return rows_ND.astype(np.float32)
