"""Checks of a run: rows that are not finite, divergence, and results that are not worth keeping."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.store.reader import Store

MOST_PASSES = 50
"""Passes over the training rows beyond which a dictionary learns them by heart."""
MOST_DEAD = 0.5
MOST_TIMES_FVU = 2.0
"""Times the FVU of all rows that the FVU without norm outliers may be."""
SMALL_FVU = 0.02
"""FVU without norm outliers that needs no warning."""


def warn_of_passes(steps: int, batch_size: int, vectors: float) -> None:
    """Note it if training goes over its vectors so often that it learns them by heart."""
    passes = steps * batch_size / max(vectors, 1)
    if passes > MOST_PASSES:
        note(
            f"warning: {steps:,} steps of {batch_size:,} vectors are {passes:,.0f} passes over "
            f"about {vectors:,.0f} training vectors. Lower --steps or --batch-size, or harvest "
            "more (--limit, --per-input)."
        )


def warn_of_result(fvu: float, dead: float, fvu_without_outliers: float | None = None) -> None:
    """Note it if the dictionary is worse than the mean vector or mostly dead, or if its FVU is that
    of a few norm outliers."""
    without = fvu if fvu_without_outliers is None else fvu_without_outliers
    if without > MOST_TIMES_FVU * fvu and without > SMALL_FVU:
        note(
            f"warning: FVU is {fvu:.3g} with norm outliers and {without:.3g} without them: a few "
            "rows hold most of the variance. Train with --norm-outliers drop (or cap)."
        )
    if not fvu <= 1:  # also where it is NaN
        note(
            f"warning: FVU {fvu:.3g} is above 1, so the mean vector reconstructs held-out vectors "
            "better than this dictionary. Lower --lr or the sparsity penalty, train longer, and "
            "look for norm outliers and large means with `tendril data stats`."
        )
    if dead > MOST_DEAD:
        note(
            f"warning: {dead:.0%} of the latents are dead. Use fewer latents, lower --lr, train "
            "longer, or initialise dead latents again (--resample-every)."
        )


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
