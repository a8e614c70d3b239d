"""Rows of two networks that are sums of features both have, or one alone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .sparse import make_store

BASE, TUNED, SHARED, WEAK = "base", "tuned", "shared", "weak in base"
KINDS = {BASE: 12, TUNED: 12, SHARED: 36, WEAK: 16}
WEAKNESS = 0.3  # of the direction in the base network of features of the kind WEAK
SITE = "s"


def planted(
    rows: int = 8000, widths: tuple[int, int] = (48, 48), seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Rows of the networks base and tuned, the coefficients [rows, F] of the features, and the kind
    of each.

    A feature that both networks have has one direction in both, if they are of one width.
    """
    draw = np.random.default_rng(seed)
    kinds = np.repeat(list(KINDS), list(KINDS.values()))
    on_NF = draw.random((rows, len(kinds))) < 0.03
    z_NF = np.where(on_NF, draw.uniform(1, 2, on_NF.shape), 0)
    d = [draw.normal(size=(len(kinds), width)) for width in widths]
    d = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in d]
    if widths[0] == widths[1]:
        d[0] = d[1]
    strength = {BASE: (1, 0), TUNED: (0, 1), SHARED: (1, 1), WEAK: (WEAKNESS, 1)}
    x = {}
    for m, name in enumerate(("base", "tuned")):
        there_F = np.array([strength[kind][m] for kind in kinds])
        noise = 0.02 * draw.normal(size=(rows, widths[m]))
        x[name] = ((z_NF * there_F) @ d[m] + noise).astype(np.float32)
    return x, z_NF, kinds


def stores(home: Path, rows: Mapping[str, np.ndarray]) -> None:
    """A store for each network."""
    for name, x in rows.items():
        make_store(home, {SITE: x}, name=name)
