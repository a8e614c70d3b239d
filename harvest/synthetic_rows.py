"""Rows that are sums of known features, as pure functions of the seed and the input.

Every random number comes from Philox keyed by (seed, what it is for, input), and rows of one input
are computed together and alone. So rows do not depend on slices, processes or their order.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.special import ndtr, ndtri

from tendril.data import order
from tendril.data.store.truth import COORDINATES, FEATURES, NONE, ROWS, summed, tree_parents

from .config import SyntheticConfig
from .loop import SliceRows

DIRECTION, ON, VALUE, SHARED, SIBLING, LOADING = range(0x5E0, 0x5E6)  # what numbers are for
BLOCK = 1024  # directions that are pushed apart at a time
PUSH = 0.2
SHELL = (0.5, 2.0)  # radii of a shell, ends of an interval


def probabilities(config: SyntheticConfig) -> Float64[np.ndarray, " f"]:
    """min(most, c i^-exponent), with c such that they sum to `active`. With `active` 0 the power
    law is stretched to go from `most` to `least`."""
    weight_F = np.arange(1, config.features + 1, dtype=np.float64) ** -config.exponent
    if config.active == 0:
        part_F = (weight_F - weight_F[-1]) / max(1 - float(weight_F[-1]), 1e-300)
        return np.asarray(config.least + (config.most - config.least) * part_F)
    low, high = 0.0, config.active / weight_F[-1]
    for _ in range(200):
        middle = (low + high) / 2
        enough = np.minimum(config.most, middle * weight_F).sum() >= config.active
        low, high = (low, middle) if enough else (middle, high)
    return np.asarray(np.minimum(config.most, high * weight_F))


def parents(config: SyntheticConfig) -> Int64[np.ndarray, " f"]:
    """The parent of each feature; NONE where it has none."""
    return tree_parents(config.features, config.roots, config.children, config.depth)


def normal(count: int, *key: int) -> Float64[np.ndarray, " n"]:
    """Standard normal numbers, a pure function of `key`."""
    numbers: Float64[np.ndarray, " n"] = ndtri(order.uniform(count, *key))
    return numbers


def directions(config: SyntheticConfig) -> Float32[np.ndarray, "f d w"]:
    """Orthonormal bases of random subspaces, or of orthogonal ones; d is 1 for `features`."""
    size = 1 if config.kind == "features" else config.dimension
    count, width = config.features, config.width
    if config.kind == "manifolds" and config.subspaces == "orthogonal":
        square = normal(width * width, config.seed, DIRECTION).reshape(width, width)
        basis, _ = np.linalg.qr(square)
        return basis.T[: count * size].reshape(count, size, width).astype(np.float32)
    drawn = normal(count * size * width, config.seed, DIRECTION).reshape(count, size, width)
    if size == 1:
        unit = drawn / np.linalg.norm(drawn, axis=2, keepdims=True)
        return pushed_apart(unit[:, 0].astype(np.float32), config.orthogonalise, config.seed)[
            :, None
        ]
    bases, _ = np.linalg.qr(drawn.transpose(0, 2, 1))
    return np.ascontiguousarray(bases.transpose(0, 2, 1)).astype(np.float32)


def pushed_apart(
    unit_FD: Float32[np.ndarray, "f w"], steps: int, seed: int
) -> Float32[np.ndarray, "f w"]:
    """Directions after steps down the gradient of the sum of squared cosines within random blocks
    of BLOCK directions."""
    for step in range(steps):
        shuffled = order.permutation(len(unit_FD), seed, DIRECTION, step + 1)
        for start in range(0, len(shuffled), BLOCK):
            some = shuffled[start : start + BLOCK]
            rows = unit_FD[some]
            cosines = rows @ rows.T
            np.fill_diagonal(cosines, 0)
            rows = rows - PUSH * cosines @ rows
            unit_FD[some] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit_FD


def largest_cosine(unit_FD: Float32[np.ndarray, "f w"]) -> float:
    """The mean over directions of the largest cosine with another one; 0 for a single one."""
    largest = [0.0]
    for start in range(0, len(unit_FD) if len(unit_FD) > 1 else 0, BLOCK):
        cosines = unit_FD[start : start + BLOCK] @ unit_FD.T
        places = np.arange(len(cosines))
        cosines[places, start + places] = -1
        largest.append(float(cosines.max(axis=1).sum()))
    return sum(largest) / max(len(unit_FD), 1)


class Source(ABC):
    """What makes the rows of an input."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self.probability_F = probabilities(config)
        self.directions_FdD = directions(config)

    @abstractmethod
    def on(self, index: int) -> Bool[np.ndarray, "p f"]:
        """Which features are on in the rows of an input."""

    @abstractmethod
    def coordinates(self, index: int) -> Float32[np.ndarray, "p k d"]:
        """Coordinates for all places of the rows of an input; those of places that are left are
        not used. `features` are scaled by `strength`."""

    def strength(self, features_PK: Int64[np.ndarray, "p k"]) -> Float32[np.ndarray, "p k"]:
        """What coordinates of a feature are moved by."""
        return np.zeros(features_PK.shape, np.float32)

    @property
    def places(self) -> int:
        """Most features that can be on in a row; any more are left out. Mean and eight standard
        deviations of independent features, and all where these are fewer."""
        p_F = self.probability_F
        most = float(p_F.sum()) + 8 * float(np.sqrt((p_F * (1 - p_F)).sum())) + 4
        return min(len(p_F), int(np.ceil(most)))

    def rows(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows [P, D], numbers of features [P, K] and coordinates [P, K, d] of an input."""
        on_PF = self.on(index)
        count_P = on_PF.cumsum(axis=1)
        on_PF &= count_P <= self.places
        at_M, feature_M = np.nonzero(on_PF)
        features_PK = np.full((len(on_PF), self.places), NONE, np.int64)
        features_PK[at_M, count_P[at_M, feature_M] - 1] = feature_M
        there_PK = features_PK >= 0
        coordinates_PKd = self.coordinates(index) + self.strength(features_PK)[:, :, None]
        coordinates_PKd[~there_PK] = 0
        return (
            summed(self.directions_FdD, features_PK, coordinates_PKd),
            features_PK,
            coordinates_PKd,
        )


@final
class Features(Source):
    """Unit directions with magnitudes, independent or in trees, correlated by a Gaussian copula."""

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self._parent_F = parents(config)
        part_F = self.probability_F.copy()  # given that the parent is on
        child_F = self._parent_F >= 0
        part_F[child_F] /= self.probability_F[self._parent_F[child_F]]
        self._threshold_F = ndtri(np.minimum(part_F, 1 - 1e-12))
        self._mean_F = np.linspace(
            config.strongest, config.weakest, config.features, dtype=np.float32
        )
        shared = config.correlation_rank
        self._loading_FR = np.zeros((config.features, 0))
        if shared:
            loading = normal(config.features * shared, config.seed, LOADING)
            loading = loading.reshape(config.features, shared)
            loading /= np.linalg.norm(loading, axis=1, keepdims=True)
            self._loading_FR = np.sqrt(config.correlation) * loading

    def on(self, index: int) -> Bool[np.ndarray, "p f"]:
        config, rows = self.config, self.config.per_input
        features, shared = config.features, self._loading_FR.shape[1]
        chance_PF = order.uniform(rows * features, config.seed, ON, index).reshape(rows, features)
        if shared:
            common_PR = normal(rows * shared, config.seed, SHARED, index).reshape(rows, shared)
            own = np.sqrt(1 - config.correlation)
            deviate_PF = common_PR @ self._loading_FR.T + own * ndtri(chance_PF)
            on_PF = deviate_PF < self._threshold_F
        else:
            on_PF = chance_PF < ndtr(self._threshold_F)
        for child in np.flatnonzero(self._parent_F >= 0):  # parents come first
            on_PF[:, child] &= on_PF[:, self._parent_F[child]]
        if config.exclusive:
            self._exclude(on_PF, index)
        return np.asarray(on_PF)

    def coordinates(self, index: int) -> Float32[np.ndarray, "p k d"]:
        rows, places = self.config.per_input, self.places
        drawn = np.abs(normal(rows * places, self.config.seed, VALUE, index))
        return np.asarray((self.config.spread * drawn).reshape(rows, places, 1), np.float32)

    def strength(self, features_PK: Int64[np.ndarray, "p k"]) -> Float32[np.ndarray, "p k"]:
        return np.asarray(self._mean_F[np.maximum(features_PK, 0)])

    def _exclude(self, on_PF: Bool[np.ndarray, "p f"], index: int) -> None:
        """Keep one of the siblings that are on, each with equal chance, and its children."""
        config = self.config
        draws = order.uniform(on_PF.size, config.seed, SIBLING, index).reshape(on_PF.shape)
        for parent in np.unique(self._parent_F[self._parent_F >= 0]):
            siblings = np.flatnonzero(self._parent_F == parent)
            kept = np.where(on_PF[:, siblings], draws[:, siblings], 2.0).argmin(axis=1)
            alone = np.zeros((len(on_PF), len(siblings)), bool)
            alone[np.arange(len(on_PF)), kept] = True
            on_PF[:, siblings] &= alone & on_PF[:, parent, None]


@final
class Manifolds(Source):
    """Points of manifolds in subspaces. Each manifold is on independently of the others, or, with
    `exclusive`, exactly one in each row."""

    @property
    def places(self) -> int:
        return 1 if self.config.exclusive else super().places

    def on(self, index: int) -> Bool[np.ndarray, "p f"]:
        rows, features = self.config.per_input, self.config.features
        if self.config.exclusive:
            chance_P = order.uniform(rows, self.config.seed, ON, index)
            ends_F = self.probability_F.cumsum()
            one_P = np.searchsorted(ends_F[:-1] / ends_F[-1], chance_P, side="right")
            return np.asarray(one_P[:, None] == np.arange(features))
        chance = order.uniform(rows * features, self.config.seed, ON, index)
        return np.asarray(chance.reshape(rows, features) < self.probability_F)

    def coordinates(self, index: int) -> Float32[np.ndarray, "p k d"]:
        config, places, d = self.config, self.places, self.config.dimension
        count = config.per_input * places
        draws = order.uniform(count * (d + 1), config.seed, VALUE, index).reshape(count, d + 1)
        points = POINTS[config.shape](draws[:, :d], draws[:, d])
        return points.astype(np.float32).reshape(config.per_input, places, d)


def _sphere(draws_Nd: np.ndarray, _: np.ndarray) -> np.ndarray:
    points = ndtri(draws_Nd)
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def _shell(draws_Nd: np.ndarray, radius_N: np.ndarray) -> np.ndarray:
    low, high = SHELL
    return np.asarray((low + (high - low) * radius_N)[:, None] * _sphere(draws_Nd, radius_N))


def _interval(draws_Nd: np.ndarray, _: np.ndarray) -> np.ndarray:
    low, high = SHELL
    return np.asarray(low + (high - low) * draws_Nd)


def _torus(draws_Nd: np.ndarray, _: np.ndarray) -> np.ndarray:
    circles = draws_Nd.shape[1] // 2
    angles = 2 * np.pi * draws_Nd[:, :circles]
    points = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(points / np.sqrt(circles))


def _circle(draws_Nd: np.ndarray, _: np.ndarray) -> np.ndarray:
    k = np.arange(1, draws_Nd.shape[1] // 2 + 1)
    angles = 2 * np.pi * draws_Nd[:, :1] * k
    return np.concatenate([np.cos(angles) / k, np.sin(angles) / k], axis=1)


POINTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sphere": _sphere,
    "shell": _shell,
    "interval": _interval,
    "torus": _torus,
    "circle": _circle,
}
"""Shape -> points [N, d] from uniform draws [N, d] and [N]."""


@final
@dataclass(frozen=True)
class SyntheticRows:
    """The producer of rows from a source."""

    source: Source

    def __call__(self, slices: Sequence[range]) -> Iterator[SliceRows]:
        count = self.source.config.per_input
        for inputs in slices:
            made = [self.source.rows(index) for index in inputs]
            rows, features, coordinates = (np.concatenate(part) for part in zip(*made, strict=True))
            yield SliceRows(
                inputs=inputs,
                activations={
                    ROWS: rows,
                    FEATURES: features.astype(np.float32),
                    COORDINATES: coordinates.reshape(len(coordinates), -1),
                },
                columns={
                    "y": np.tile(np.arange(count), len(inputs)),
                    "x": np.zeros(count * len(inputs), np.int64),
                },
                names=[f"rows {i * count} to {(i + 1) * count - 1}" for i in inputs],
            )
