"""What can go wrong while training through no fault of ours, each told in a sentence."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import numpy as np
import torch

from tendril.data.errors import ConfigError
from tendril.data.store.reader import Store

from .config import TrainConfig, near

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def check_sites(store: Store, sites: Sequence[str]) -> tuple[str, ...]:
    """The sites themselves. Raises ConfigError for one that is not stored, with those there
    are and the near ones, and for one that is named twice."""
    for site in sites:
        if site not in store.sites:
            raise ConfigError(
                f"the store {store.name} has the sites {', '.join(store.sites)}, and not "
                f"{site!r}; choose one of them with --site, or harvest that one"
                f"{near(site, store.sites)}."
            )
    if len(set(sites)) < len(sites):
        raise ConfigError(f"--sites names each site once, and not {' '.join(sites)}.")
    return tuple(sites)


def refuse_not_finite(store: Store, sites: Sequence[str]) -> None:
    """Raise ConfigError naming the first valid row that holds NaN or infinity, if there is one.

    Reads the whole site: asked only where a sum over it came out as NaN."""
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
                    f"row {row} of activations/{site} in {store.name} (of input {name!r}) "
                    "should hold finite numbers, and holds NaN or infinity; harvest the site "
                    "again, with --overwrite."
                )


def diverged(store: Store, sites: Sequence[str], step: int, kept: int, lr: float) -> NoReturn:
    """Say why the loss of a step is no number: rows that are none, or a rate too high."""
    refuse_not_finite(store, sites)
    last = f"the checkpoint of step {kept} is kept" if kept else "there is no checkpoint yet"
    raise ConfigError(
        f"the loss is not finite at step {step}: training has diverged, and {last}; lower --lr "
        f"(it is {lr:g})."
    )


@contextmanager
def memory_told(config: TrainConfig, width: int) -> Iterator[None]:
    """Turn the device's running out of memory into a ConfigError that says what lowers it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
            sign in str(error) for sign in OUT_OF_MEMORY
        ):
            raise
        batch = f"--batch-size (it is {config.batch_size})"
        latents = f"--latents (it is {config.latents_for(width)})"
        # [batch, latents] tensors against weights, gradients and moments
        first, then = (batch, latents) if config.batch_size > 2 * width else (latents, batch)
        raise ConfigError(
            f"the device ran out of memory; lower {first} first, then {then}."
        ) from error
