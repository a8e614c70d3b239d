"""Runs of successive layers, the store that they share, and their codes on its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int
from scipy import sparse

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE

from ..core.stores import (
    common_site,
    common_store,
    dictionary_digests,
    held_out_fraction,
    held_out_rows,
    is_language_run,
)
from .config import MatchConfig

BATCH = 4096


@final
@dataclass(frozen=True)
class MatchInputs:
    """Runs in the order of their layers, and the store that all were trained on."""

    runs: tuple[Path, ...]
    sites: tuple[str, ...]
    store: Store

    @property
    def language(self) -> bool:
        """True for a language model."""
        return is_language_run(self.runs[0])

    def identity(self) -> dict[str, Any]:
        """What determines findings besides the settings."""
        return {
            "dictionaries": dictionary_digests(self.runs),
            "sites": list(self.sites),
            "store": self.store.name,
        }


def find_match_inputs(config: MatchConfig) -> MatchInputs:
    """Find the runs and their store. Raises ConfigError where a site is named twice, or a
    dictionary takes more than single vectors of one site."""
    runs = tuple(find_run(name, config.home) for name in config.run)
    sites = tuple(common_site([run]) for run in runs)
    if len(set(sites)) < len(sites):
        raise ConfigError(
            f"--run must name runs of different sites, in the order of their layers; got "
            f"{', '.join(sites)}. Compare runs of one site with `tendril study compare`."
        )
    store = common_store(runs, config.home, config.store)
    missing = [site for site in sites if site not in store.sites]
    if missing:
        raise ConfigError(
            f"the store must hold all sites, so that they can be compared row by row; {store.name} "
            f"lacks {', '.join(missing)}. Harvest all sites in one pass."
        )
    for run, site in zip(runs, sites, strict=True):
        width = int(read_config(run)["dictionary"]["width"])
        if store.width(site) != width:
            raise ConfigError(
                f"{run.name} takes vectors of width {width}; {site} of {store.name} has "
                f"{store.width(site)}. Pass --store with the store that the runs were trained on."
            )
    return MatchInputs(runs, sites, store)


def dictionaries(inputs: MatchInputs) -> list[SAE]:
    """The runs' dictionaries."""
    return [load_sae(run) for run in inputs.runs]


def compared_rows(inputs: MatchInputs, count: int) -> Int[np.ndarray, " n"]:
    """Rows to compare activations on."""
    fraction = held_out_fraction([read_config(run) for run in inputs.runs])
    return held_out_rows(inputs.store, fraction, count)


@torch.no_grad()
def codes(
    store: Store, site: str, sae: SAE, rows: Int[np.ndarray, " n"], device: torch.device
) -> sparse.csr_array:
    """The latents of some rows [N, S]."""
    sae = sae.to(device)
    parts = []
    for start in range(0, len(rows), BATCH):
        x_ND = torch.from_numpy(store.read(site, rows[start : start + BATCH])).to(device)
        parts.append(sparse.csr_array(sae.encode(x_ND).float().cpu().numpy()))
    return sparse.csr_array(sparse.vstack(parts))


def mean_when_on(z_NS: sparse.csr_array) -> np.ndarray:
    """The mean of each latent where it is active; 0 for a latent that never is."""
    count_S = np.asarray((z_NS > 0).sum(axis=0)).ravel()
    total_S = np.asarray(z_NS.sum(axis=0)).ravel()
    found: np.ndarray = np.divide(total_S, count_S, out=np.zeros(len(count_S)), where=count_S > 0)
    return found


def labelled(sites: Sequence[str]) -> str:
    """Sites in a sentence, e.g. `conv2d2, mixed3a and mixed3b`."""
    return f"{', '.join(sites[:-1])} and {sites[-1]}" if len(sites) > 1 else sites[0]
