"""Where the vectors of a run come from: one site of a store, or several, side by side."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from data.errors import ConfigError
from data.reader import Store
from models.dictionaries.crosscoder import joined

from .config import TrainConfig
from .distributed import ALONE, Ranks
from .faults import check_sites, refuse_not_finite


@final
@dataclass(frozen=True)
class Source:
    """Sites of a store, for one dictionary."""

    store: Store
    sites: tuple[str, ...]

    @property
    def name(self) -> str:
        """The sites, for people and for the run's identity."""
        return "+".join(self.sites)

    @property
    def blocks(self) -> dict[str, int]:
        """The width of each site."""
        return {site: self.store.width(site) for site in self.sites}

    @property
    def joint(self) -> tuple[int, ...]:
        """The widths of the sites of a crosscoder; none for a single site."""
        return tuple(self.blocks.values()) if len(self.sites) > 1 else ()

    @property
    def width(self) -> int:
        """D of the vectors that a dictionary sees."""
        return sum(self.blocks.values())

    def training(self, config: TrainConfig, device: torch.device, ranks: Ranks = ALONE) -> Any:
        """Endless batches to train on, this process's share of them: tensors, or a mapping of
        aligned tensors."""
        return self._batches(config, device, "train", None, ranks)

    def once(
        self, config: TrainConfig, device: torch.device, part: str = "held_out"
    ) -> Iterator[Float[Tensor, "n d"]]:
        """One pass over the vectors of a part, joined."""
        batches = self._batches(config, device, part, 1)
        try:
            for rows in batches:
                yield joined(rows) if isinstance(rows, Mapping) else rows
        finally:
            batches.close()

    def _batches(
        self,
        config: TrainConfig,
        device: torch.device,
        part: str,
        epochs: int | None,
        ranks: Ranks = ALONE,
    ) -> Any:
        asked: Any = self.sites if len(self.sites) > 1 else self.sites[0]
        return self.store.batches(
            asked,
            ranks.share(config.batch_size),
            seed=config.order_seed,
            device=device,
            part=part,
            held_out=config.held_out,
            epochs=epochs,
            rank=ranks.rank,
            ranks=ranks.ranks,
            huge=config.huge,
            huge_times=config.huge_times,
        )

    def scale(self) -> float | Float[Tensor, " d"]:
        """The number a site that makes E||x||^2 = D there, from the store's own moments: one
        number for one site, one a dimension for several. Raises ConfigError where the vectors
        do not differ, or are no numbers."""
        scales = {site: self._scale(site) for site in self.sites}
        if len(scales) == 1:
            return scales[self.sites[0]]
        return torch.cat([torch.full((self.blocks[s],), scale) for s, scale in scales.items()])

    def _scale(self, site: str) -> float:
        moments = self.store.moments(site)
        size = float((moments.variance + moments.mean**2).sum())
        if not math.isfinite(size):
            refuse_not_finite(self.store, (site,))
        if not moments.variance.sum() > 0:
            raise ConfigError(
                f"every vector of {site} in {self.store.name} is the same, so there is nothing "
                "to learn; choose another --site."
            )
        return math.sqrt(self.store.width(site) / size)


def source_of(config: TrainConfig, store: Store) -> Source:
    """The sites that a config names; the first of the store where it names none."""
    return Source(store, check_sites(store, config.sites or (config.site or store.sites[0],)))
