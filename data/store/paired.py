"""Two stores of the same inputs, harvested from two networks, read as one."""

from collections.abc import Mapping
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Int

from ..errors import ConfigError
from .moments import OUTLIER_TIMES
from .reader import Store


@final
class PairedStores:
    """The sites of two stores side by side, under the names of their parts (`NETWORK:SITE`).

    Row r of every part comes from the same position of the same input. Index columns and text are
    those of the first store.
    """

    def __init__(self, parts: Mapping[str, tuple[Store, str]]) -> None:
        self.parts = dict(parts)
        self.first = next(iter(self.parts.values()))[0]
        self.chunk_rows, self.rows = self.first.chunk_rows, self.first.rows
        self.name = " and ".join(dict.fromkeys(store.name for store, _ in self.parts.values()))

    def width(self, part: str) -> int:
        """The width D of a part."""
        store, site = self.parts[part]
        return store.width(site)

    def read(self, part: str, rows: slice | Int[np.ndarray, " n"]) -> Float32[np.ndarray, " n *d"]:
        """Rows of a part, as `Store.read` gives them."""
        store, site = self.parts[part]
        return store.read(site, rows)

    def norm_outliers(self, part: str, times: float = OUTLIER_TIMES) -> Bool[np.ndarray, " r"]:
        """True for rows of a part whose norm exceeds `times` the median norm."""
        store, site = self.parts[part]
        return store.norm_outliers(site, times)


def check_aligned(store: Store, paired: Store) -> None:
    """Raise ConfigError unless rows of the same number belong to the same position of the same
    input."""
    ours, theirs = store.arrays.layout, paired.arrays.layout
    same_shape = (ours.inputs, ours.columns, ours.rows, ours.elements) == (
        *(theirs.inputs, theirs.columns, theirs.rows, theirs.elements),
    )
    columns = ("input", "valid", *ours.columns)
    differing = [
        name
        for name in (columns if same_shape else ())
        if not np.array_equal(store.column(name), paired.column(name))
    ]
    if not same_shape or differing:
        what = f"the columns {', '.join(differing)} differ" if differing else "the shapes differ"
        raise ConfigError(
            f"--paired-store must hold the same inputs and positions as {store.name}; got "
            f"{paired.name} ({what}). Harvest both networks with the same flags except --subject "
            "and --sites."
        )


def network_names(store: Store, paired: Store) -> tuple[str, str]:
    """The names of two paired stores: their subjects if these differ, else their own."""
    names = (str(store.spec["subject"].get("name")), str(paired.spec["subject"].get("name")))
    return names if names[0] != names[1] else (store.name, paired.name)
