"""Where the vectors of a run come from: one site of a store, or several, side by side.

In a store of orbits a vector is a whole orbit: the elements' vectors side by side, each of them
the sites' side by side.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from data.dihedral import Dihedral
from data.errors import ConfigError
from data.reader import Batches, Store
from models.dictionaries.crosscoder import joined

from .config import CONTROLS, JOINT, ONLY_FOR, TrainConfig, near
from .controls import Spoiler
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
        """The width of each site (at one element)."""
        return {site: self.store.width(site) for site in self.sites}

    @property
    def group(self) -> Dihedral | None:
        """The group, where the store is of orbits."""
        return self.store.group

    @property
    def elements(self) -> int:
        """How many vectors a row has."""
        return len(self.group) if self.group else 1

    @property
    def joint(self) -> tuple[int, ...]:
        """The widths of what a crosscoder crosses: the elements of an orbit, or else several
        sites; none for a single site."""
        if self.group:
            return (sum(self.blocks.values()),) * self.elements
        return tuple(self.blocks.values()) if len(self.sites) > 1 else ()

    @property
    def width(self) -> int:
        """D of the vectors that a dictionary sees."""
        return self.elements * sum(self.blocks.values())

    def training(
        self, config: TrainConfig, device: torch.device, ranks: Ranks = ALONE
    ) -> "Vectors":
        """Endless vectors to train on, this process's share of them."""
        return self._vectors(config, device, "train", None, ranks)

    def once(
        self, config: TrainConfig, device: torch.device, part: str = "held_out"
    ) -> Iterator[Float[Tensor, "n d"]]:
        """One pass over the vectors of a part."""
        vectors = self._vectors(config, device, part, 1)
        try:
            yield from vectors
        finally:
            vectors.close()

    def _vectors(
        self,
        config: TrainConfig,
        device: torch.device,
        part: str,
        epochs: int | None,
        ranks: Ranks = ALONE,
    ) -> "Vectors":
        asked: Any = self.sites if len(self.sites) > 1 else self.sites[0]
        batches = self.store.batches(
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
        spoiler = Spoiler(config.control, self.group, config.seed) if self.group else None
        return Vectors(batches, spoiler)

    def scale(self) -> float | Float[Tensor, " d"]:
        """The number a site that makes E||x||^2 = D there, from the store's own moments: one
        number for one site, one a dimension for several. Of orbits, ||x||^2 and D are those of
        the whole. Raises ConfigError where the vectors do not differ, or are no numbers."""
        scales = {site: self._scale(site) for site in self.sites}
        if len(scales) == 1:
            return scales[self.sites[0]]
        parts = [torch.full((self.blocks[s],), scale) for s, scale in scales.items()]
        return torch.cat(parts).repeat(self.elements)

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
        return math.sqrt(self.elements * self.blocks[site] / size)


@final
class Vectors(Iterator[Float[Tensor, "n d"]]):
    """Batches of a store as vectors: sites side by side, and elements, where there are any."""

    def __init__(self, batches: Batches[Any], spoiler: Spoiler | None) -> None:
        self._batches, self._spoiler = batches, spoiler

    def __next__(self) -> Float[Tensor, "n d"]:
        rows = next(self._batches)
        x = joined(rows) if isinstance(rows, Mapping) else rows
        return self._spoiler(x).flatten(1) if self._spoiler else x

    def state(self) -> dict[str, int]:
        """All that is needed to go on from here."""
        return self._batches.state()

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a state."""
        self._batches.restore(state)

    def close(self) -> None:
        """Let go of threads and memory."""
        self._batches.close()


def source_of(config: TrainConfig, store: Store) -> Source:
    """The sites that a config names; the first of the store where it names none. Raises
    ConfigError for one that is not there, and where the config wants orbits and these are
    none."""
    check_orbits(config, store)
    return Source(store, check_sites(store, config.sites or (config.site or store.sites[0],)))


def check_orbits(config: TrainConfig, store: Store) -> None:
    """Raise ConfigError where a config and a store do not agree on orbits."""
    group, control = store.group, config.control
    if control not in CONTROLS:
        raise ConfigError(
            f"--control is one of {', '.join(CONTROLS)}, and not {control!r}"
            f"{near(control, CONTROLS)}."
        )
    if group is None and (config.objective == "orbit" or control != "none"):
        what = f"--control {control}" if control != "none" else "an orbit crosscoder"
        raise ConfigError(
            f"{what} wants a store of orbits, and the inputs of {store.name} were taken through "
            "no group; make one with `python -m harvest orbits`, or name it with --store."
        )
    if control == "wrong-side" and config.objective != "orbit":
        raise ConfigError(
            "--control wrong-side is for the objective orbit, whose copies are tied by the group, "
            f"and not for {config.objective!r}; choose another control."
        )
    if group and not group.reflections and control.startswith("reflected-half"):
        raise ConfigError(
            f"--control {control} wants a group with reflections, and {store.name} is of "
            f"{group.name}; choose another control."
        )
    if config.objective == "orbit" and config.resample_every:
        raise ConfigError(
            "--resample-every is for latents that are not tied, and families have AuxK; leave it "
            "at 0."
        )
    own = ONLY_FOR.get(config.objective, set())
    if group and config.sources != "all" and "sources" not in own:
        raise ConfigError(
            f"--sources {config.sources} is for the objectives {', '.join(JOINT[:-1])}, and "
            f"{config.objective!r} encodes all elements; choose one of these, or --sources all."
        )
