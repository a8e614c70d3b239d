"""What the rows of a store are like, that activations may go with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float, Int

from tendril.data.cli import note
from tendril.data.errors import TendrilError
from tendril.data.store.reader import Store

from ..core.image_batches import harvested_images

SIDE = 32  # pixels of the patch around a position


@final
@dataclass(frozen=True)
class Rows:
    """What is known of some rows.

    values: numbers that rank correlations are taken with, by name
    groups: numbers of groups by name, with the groups' names
    unread: rows of the unembedding, where there is one [V, D]
    """

    values: Mapping[str, Float[np.ndarray, " n"]] = field(default_factory=dict)
    groups: Mapping[str, tuple[Int[np.ndarray, " n"], tuple[str, ...]]] = field(
        default_factory=dict
    )
    unread: Float[np.ndarray, "v d"] | None = None


def rows_of(store: Store, site: str, rows: Int[np.ndarray, " n"], subject: str) -> Rows:
    """What is known of rows of text, or of images."""
    norm_N = store.norms(site)[rows].astype(float)
    if store.spec["inputs"].get("kind") == "text":
        from .text import text_rows  # needs transformers

        return Rows(*text_rows(store, site, rows, subject, norm_N))
    return _images(store, rows, norm_N)


def _images(store: Store, rows: Int[np.ndarray, " n"], norm_N: Float[np.ndarray, " n"]) -> Rows:
    columns = {name: store.column(name)[rows].astype(float) for name in ("y", "x")}
    values = {"row of the map": columns["y"], "column of the map": columns["x"], "norm": norm_N}
    try:
        images = harvested_images(store)
    except TendrilError as error:
        note(f"brightness and edges are left out: {error}")
        return Rows(values)
    size, grid = int(store.spec["inputs"]["size"]), store.grid(store.sites[0])
    stride = size / np.array(grid)
    input_N = store.column("input")[rows]
    bright_N, edges_N = np.zeros(len(rows)), np.zeros(len(rows))
    for number in np.unique(input_N):
        grey = images.given(int(number), size).astype(float).mean(axis=-1)
        dy, dx = np.gradient(grey)
        slope = np.hypot(dy, dx)
        for row in np.flatnonzero(input_N == number):
            y, x = (columns["y"][row] + 0.5) * stride[0], (columns["x"][row] + 0.5) * stride[1]
            at = tuple(slice(max(0, int(c) - SIDE // 2), int(c) + SIDE // 2) for c in (y, x))
            bright_N[row], edges_N[row] = grey[at].mean(), slope[at].mean()
    return Rows({**values, "brightness": bright_N, "edge energy": edges_N})
