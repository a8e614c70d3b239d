"""Where to draw the features of a toy model: components apart, shapes as they lie in the model."""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from ..measures.superposition_geometry import EDGE, Geometry

RING = 8
"""Components of at most this many features are drawn as a ring."""
SPACING, MARGIN = 26.0, 15.0
ROUNDS = 200
ASPECT = 1.3
GOLDEN = float(np.pi * (3 - 5**0.5))

Edge = tuple[float, float, float, float, float, bool]
"""x1, y1, x2, y2, weight, and whether its features point away from each other."""


@final
@dataclass(frozen=True)
class Graph:
    """Nodes (x, y) and edges in a box of a width and height."""

    nodes: list[tuple[float, float]]
    edges: list[Edge]
    width: float
    height: float


def graph(W_DF: Float[np.ndarray, "d f"], form: Geometry) -> Graph:
    """The represented features of a model, with edges (W_i . W_j)^2 of EDGE or more."""
    gram_FF = (W_DF.T @ W_DF).astype(np.float64)
    parts = [np.array(part) for part in form.components]
    drawn = [_placed(W_DF[:, part], gram_FF[np.ix_(part, part)] ** 2) for part in parts]
    boxes = [np.ptp(at_K2, axis=0) + 2 * MARGIN for at_K2 in drawn]
    corners, width, height = _shelves(boxes)
    nodes: list[tuple[float, float]] = []
    edges: list[Edge] = []
    for part, at_K2, corner in zip(parts, drawn, corners, strict=True):
        at_K2 = at_K2 - at_K2.min(0) + MARGIN + corner
        for i, j in zip(*np.triu_indices(len(part), 1), strict=True):
            dot = float(gram_FF[part[i], part[j]])
            if dot**2 >= EDGE:
                x1, y1, x2, y2 = (round(float(v), 1) for v in (*at_K2[i], *at_K2[j]))
                edges.append((x1, y1, x2, y2, round(min(1.0, dot**2), 2), dot < 0))
        nodes.extend((round(float(x), 1), round(float(y), 1)) for x, y in at_K2)
    return Graph(nodes, edges, round(width, 1), round(height, 1))


def _placed(W_DK: Float[np.ndarray, "d k"], weight_KK: Float[np.ndarray, "k k"]) -> np.ndarray:
    """Features of a component in the plane."""
    k = W_DK.shape[1]
    if k == 1:
        return np.zeros((1, 2))
    if k == 2:
        return np.array([[0.0, 0.0], [0.0, SPACING]])
    _, values, axes = np.linalg.svd(W_DK, full_matrices=False)
    flat_K2 = (values[:2, None] * axes[:2]).T if len(values) > 1 else np.zeros((k, 2))
    if k <= RING:
        order = np.argsort(np.argsort(np.arctan2(flat_K2[:, 1], flat_K2[:, 0]), kind="stable"))
        angle = 2 * np.pi * order / k - np.pi / 2
        size = SPACING / (2 * np.sin(np.pi / k))
        return np.asarray(size * np.stack([np.cos(angle), np.sin(angle)], 1))
    return _sprung(flat_K2, weight_KK)


def _sprung(start_K2: np.ndarray, weight_KK: np.ndarray) -> np.ndarray:
    """Springs along edges, and repulsion between all nodes (Fruchterman and Reingold, 1991)."""
    k = len(start_K2)
    angle = GOLDEN * np.arange(k)
    at_K2 = start_K2 / max(np.abs(start_K2).max(), 1e-9) * SPACING * k**0.5
    at_K2 = at_K2 + 0.3 * SPACING * np.stack([np.cos(angle), np.sin(angle)], 1)
    joined_KK = np.where(weight_KK >= EDGE, np.minimum(weight_KK, 1.0), 0.0)
    np.fill_diagonal(joined_KK, 0.0)
    for turn in range(ROUNDS):
        apart_KK2 = at_K2[:, None] - at_K2[None]
        distance_KK = np.sqrt((apart_KK2**2).sum(-1)) + 1e-6
        push_KK = SPACING**2 / distance_KK**2 - joined_KK * distance_KK / SPACING
        push_K2 = (apart_KK2 * push_KK[..., None]).sum(1) - 0.08 * at_K2
        length_K1 = np.sqrt((push_K2**2).sum(1, keepdims=True)) + 1e-9
        most = SPACING * (1 - turn / ROUNDS)
        at_K2 = at_K2 + push_K2 / length_K1 * np.minimum(length_K1, most)
    return np.asarray(at_K2)


def _shelves(boxes: list[np.ndarray]) -> tuple[list[np.ndarray], float, float]:
    """Corners of boxes on shelves, in their order, with the width and height of all."""
    if not boxes:
        return [], 10.0, 10.0
    area = sum(float(box[0] * box[1]) for box in boxes)
    limit = max((area * ASPECT) ** 0.5, max(float(box[0]) for box in boxes))
    corners, x, y, high, wide = [], 0.0, 0.0, 0.0, 0.0
    for box in boxes:
        if x and x + box[0] > limit * 1.02:
            x, y, high = 0.0, y + high, 0.0
        corners.append(np.array([x, y]))
        x, high = x + float(box[0]), max(high, float(box[1]))
        wide = max(wide, x)
    return corners, wide, y + high
