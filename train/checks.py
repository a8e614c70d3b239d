"""Checks of a run: sites that are not stored, rows that are not finite, divergence, and results
that are not worth keeping."""

from collections.abc import Iterable, Sequence
from typing import NoReturn

import numpy as np

from tendril.data import order
from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.store.reader import Store
from tendril.data.store.spec import blocks_of, full_site, short_site

from .config import near
from .outliers import Channels

MOST_PASSES = 50
"""Passes over the training rows beyond which a dictionary learns them by heart."""
MOST_DEAD = 0.5
FEWEST_HELD_OUT = 10
"""Held-out inputs below which figures on held-out vectors say little."""
MOST_TIMES_FVU = 2.0
"""Times the FVU of all rows that the FVU without norm outliers may be."""
SMALL_FVU = 0.02
"""FVU without norm outliers that needs no warning."""


def warnings_of_passes(steps: int, batch_size: int, vectors: float) -> list[str]:
    """A warning if training goes over its vectors so often that it learns them by heart."""
    passes = steps * batch_size / max(vectors, 1)
    if not passes > MOST_PASSES:
        return []
    return [
        f"{steps:,} steps of {batch_size:,} vectors are {passes:,.0f} passes over about "
        f"{vectors:,.0f} training vectors. Lower --steps or --batch-size, or harvest more "
        "(--limit, --per-input)."
    ]


def warnings_of_held_out(store: Store, fraction: float) -> list[str]:
    """A warning if few inputs are held out, whose figures chance decides."""
    inputs = store.column("input")
    valid_I = np.zeros(int(inputs.max(initial=-1)) + 1, bool)
    valid_I[inputs[store.column("valid")]] = True
    held_I = order.held_out(np.arange(len(valid_I)), fraction) & valid_I
    count, total = int(held_I.sum()), int(valid_I.sum())
    if not count < FEWEST_HELD_OUT:
        return []
    return [
        f"only {count} of {total:,} inputs of {store.name} are held out, so chance decides the "
        f"figures on held-out vectors. Raise --held-out (now {fraction:g}), or harvest more inputs "
        "(--limit)."
    ]


def warnings_of_mean(channels: Channels, where: str, bias: str) -> list[str]:
    """A warning if the mean carries most of the squared norm, is not subtracted, and b_dec does not
    start there. The outlier severity is ||mean|| / ||std||."""
    if channels.off_centre or not channels.severity > 1 or bias in ("median", "mean"):
        return []
    share = channels.severity**2 / (1 + channels.severity**2)
    remedy = "Pass --bias mean" if bias else "Choose a recipe with --bias"
    start = "is" if bias == "none" else "starts at"
    return [
        f"the mean carries {share:.0%} of the squared norm of {where} (||mean|| / ||std|| is "
        f"{channels.severity:.3g}), which makes latents die, and b_dec {start} zero. {remedy}, or "
        "initialise dead latents again (--resample-every)."
    ]


def warnings_of_result(
    fvu: float, dead: float, fvu_without_outliers: float | None = None
) -> list[str]:
    """A warning if the dictionary is worse than the mean vector, of all vectors or of those without
    norm outliers, if it is mostly dead, or if its FVU is that of a few norm outliers."""
    without = fvu if fvu_without_outliers is None else fvu_without_outliers
    found = []
    if without > MOST_TIMES_FVU * fvu and without > SMALL_FVU:
        found.append(
            f"FVU is {fvu:.3g} with norm outliers and {without:.3g} without them: a few rows hold "
            "most of the variance. Train with --norm-outliers drop (or cap)."
        )
    if not fvu <= 1:  # also where it is NaN
        found.append(
            f"FVU {fvu:.3g} is above 1, so the mean vector reconstructs held-out vectors better "
            "than this dictionary. Lower --lr or the sparsity penalty, train longer, and look for "
            "norm outliers and large means with `tendril data stats`."
        )
    if dead > MOST_DEAD:
        found.append(
            f"{dead:.0%} of the latents are dead. Use fewer latents, lower --lr, train longer, or "
            "initialise dead latents again (--resample-every)."
        )
    return found


def warn(found: Iterable[str]) -> None:
    """Note warnings, each once."""
    for text in dict.fromkeys(found):
        note(f"warning: {text}")


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


def stored_sites(store: Store, wanted: Sequence[str]) -> tuple[str, ...]:
    """Sites by their full names; a language site may be given by its short one (see `full_site`).

    Raises ConfigError for a site that is not stored, with the names that are near, and for one that
    is named twice.
    """
    blocks = blocks_of(store.origin)
    sites = tuple(full_site(name, store.sites, blocks) for name in wanted)
    for site in sites:
        if site not in store.sites:
            known = dict.fromkeys([*store.sites, *map(short_site, store.sites)])
            raise ConfigError(
                f"--site must be one of {', '.join(store.sites)}, the sites of {store.name}; got "
                f"{site!r}{near(site, known)}. Choose one of them, or harvest that site."
            )
    if len(set(sites)) < len(sites):
        raise ConfigError(f"--sites must name each site once; got {' '.join(wanted)}.")
    return sites
