"""Errors found while training: rows that are not finite, and divergence."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from tendril.data.errors import ConfigError
from tendril.data.store.reader import Store


def refuse_not_finite(store: Store, sites: Sequence[str]) -> None:
    """Raise ConfigError for the first valid row that holds NaN or infinity, if there is one.

    Reads the sites whole, so it is called only after a sum over them came out as NaN.
    """
    valid = store.column("valid")
    for site in sites:
        for start in range(0, store.rows, store.chunk_rows):
            rows_RD = store.read(site, slice(start, start + store.chunk_rows))
            bad = valid[start : start + len(rows_RD)] & ~np.isfinite(rows_RD).reshape(
                len(rows_RD), -1
            ).all(axis=1)
            if bad.any():
                row = start + int(bad.argmax())
                name = store.input_name(int(store.column("input")[row]))
                raise ConfigError(
                    f"rows must be finite; row {row} of activations/{site} in {store.name} (input "
                    f"{name!r}) holds NaN or infinity. Harvest the site again, with --overwrite."
                )


def diverged(store: Store, sites: Sequence[str], step: int, kept: int, lr: float) -> NoReturn:
    """Raise ConfigError for a loss that is not finite: for the rows that cause it, or for a
    learning rate that is too high. `kept` is the step of the last checkpoint, 0 if there is
    none."""
    refuse_not_finite(store, sites)
    last = f"the checkpoint of step {kept} is kept" if kept else "there is no checkpoint yet"
    raise ConfigError(
        f"training has diverged: the loss is not finite at step {step} ({last}). Lower --lr (now "
        f"{lr:g})."
    )
