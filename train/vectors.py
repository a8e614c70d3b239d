"""Where the vectors of a run come from: one site of a store, or several, side by side.

In a store of orbits a vector is a whole orbit: the elements' vectors side by side, each of them
the sites' side by side; or, for a dictionary that knows no group, one element of it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_store
from tendril.data.store.reader import Batches, Store, open_store

from .checks import check_sites, refuse_not_finite
from .config import CONTROLS, JOINT, ONLY_FOR, TrainConfig, near
from .controls import Spoiler
from .distributed import ALONE, Ranks


@final
@dataclass(frozen=True)
class Source:
    """Sites of a store, for one dictionary; and the same sites of another network's store of the
    same inputs, where there is one `beside`."""

    store: Store
    sites: tuple[str, ...]
    beside: Store | None = None
    joined: bool = True
    """Whether orbits are taken whole."""

    @property
    def parts(self) -> dict[str, tuple[Store, str]]:
        """What lies side by side in a vector: a name, for people and for files -> store, site."""
        if self.beside is None:
            return {site: (self.store, site) for site in self.sites}
        stores = dict(zip(_labels(self.store, self.beside), (self.store, self.beside), strict=True))
        return {f"{who}:{s}": (store, s) for who, store in stores.items() for s in self.sites}

    @property
    def name(self) -> str:
        """The sites, for people and for the run's identity."""
        return "+".join(self.parts)

    @property
    def blocks(self) -> dict[str, int]:
        """The width of each part (at one element)."""
        return {name: store.width(site) for name, (store, site) in self.parts.items()}

    @property
    def group(self) -> Dihedral | None:
        """The group, where the store is of orbits."""
        return self.store.group

    @property
    def elements(self) -> int:
        """How many of a row's vectors a dictionary sees side by side."""
        return len(self.group) if self.group and self.joined else 1

    @property
    def joint(self) -> tuple[int, ...]:
        """The widths of what a crosscoder crosses: the elements of an orbit, or else several
        sites; none for a single site."""
        if self.group and self.joined:
            return (sum(self.blocks.values()),) * self.elements
        return tuple(self.blocks.values()) if len(self.parts) > 1 else ()

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
        each = len(self.group) if self.group and config.orbits == "each" else 1  # vectors of a row
        streams = [
            store.batches(
                self.sites,
                ranks.share(config.batch_size) // each,
                seed=config.order_seed,
                device=device,
                part=part,
                held_out=config.held_out,
                epochs=epochs,
                rank=ranks.rank,
                ranks=ranks.ranks,
                norm_outliers=config.huge,
                outlier_times=config.huge_times,
            )
            for store in (self.store, self.beside)
            if store is not None
        ]
        spoiler = Spoiler(config.control, self.group, config.seed) if self.group else None
        return Vectors(streams, spoiler, config.orbits)

    def scale(self) -> float | Float[Tensor, " d"]:
        """The number a site that makes E||x||^2 = D there, from the store's own moments: one
        number for one site, one a dimension for several. Of orbits, ||x||^2 and D are those of
        the whole. Raises ConfigError where the vectors do not differ, or are no numbers."""
        scales, blocks = self.scales(), self.blocks
        if len(scales) == 1:
            return next(iter(scales.values()))
        parts = [torch.full((blocks[name],), scale) for name, scale in scales.items()]
        return torch.cat(parts).repeat(self.elements)

    def scales(self) -> dict[str, float]:
        """That number of each part. Raises ConfigError as `scale` does."""
        return {name: self._scale(store, site) for name, (store, site) in self.parts.items()}

    def _scale(self, store: Store, site: str) -> float:
        moments = store.moments(site)
        size = float((moments.variance + moments.mean**2).sum())
        if not math.isfinite(size):
            refuse_not_finite(store, (site,))
        if not moments.variance.sum() > 0:
            raise ConfigError(
                f"every vector of {site} in {store.name} is the same, so there is nothing "
                "to learn; choose another --site."
            )
        elements = len(self.group) if self.group else 1  # of an orbit, in the store's moments
        return math.sqrt(elements * store.width(site) / size)


@final
class Vectors(Iterator[Float[Tensor, "n d"]]):
    """Batches of a store as vectors: sites side by side, and elements, where there are any; of
    two stores of the same inputs, whose order is one, row beside row."""

    def __init__(
        self,
        streams: Sequence[Batches[dict[str, Tensor]]],
        spoiler: Spoiler | None,
        orbits: str = "joined",
    ) -> None:
        self._streams, self._spoiler, self._orbits = streams, spoiler, orbits

    def __next__(self) -> Float[Tensor, "n d"]:
        rows = [x for stream in self._streams for x in next(stream).values()]
        x = torch.cat(rows, dim=-1) if len(rows) > 1 else rows[0]
        if self._spoiler is None:
            return x
        if self._orbits == "joined":
            return self._spoiler(x).flatten(1)
        return x.flatten(0, 1) if self._orbits == "each" else x[:, 0]

    def state(self) -> dict[str, int]:
        """All that is needed to go on from here."""
        return self._streams[0].state()

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a state."""
        for stream in self._streams:
            stream.restore(state)

    def close(self) -> None:
        """Let go of threads and memory."""
        for stream in self._streams:
            stream.close()


def source_of(config: TrainConfig, store: Store) -> Source:
    """The sites that a config names; the first of the store where it names none. Raises
    ConfigError for one that is not there, and where the config wants orbits and these are
    none, or two stores that are not of the same inputs."""
    check_orbits(config, store)
    sites = check_sites(store, config.sites or (config.site or store.sites[0],))
    beside = open_store(find_store(config.beside, config.home)) if config.beside else None
    if beside is not None:
        check_sites(beside, sites)
        _check_aligned(store, beside)
    return Source(store, sites, beside, joined=config.orbits == "joined")


def _check_aligned(store: Store, beside: Store) -> None:
    """Raise ConfigError where rows of the same number are not of the same place of the same
    input, or would not be read in the same order."""
    ours, theirs = store.arrays.layout, beside.arrays.layout
    same_shape = (ours.inputs, ours.columns, store.chunk_rows, ours.widths, ours.elements) == (
        *(theirs.inputs, theirs.columns, beside.chunk_rows, theirs.widths, theirs.elements),
    )
    columns = ("input", "valid", *ours.columns)
    differing = [
        name
        for name in (columns if same_shape else ())
        if not np.array_equal(store.column(name), beside.column(name))
    ]
    if not same_shape or differing:
        what = (
            f"their columns {', '.join(differing)} differ" if differing else "their shapes differ"
        )
        raise ConfigError(
            f"--beside wants a store of the same inputs and positions as {store.name}, with sites "
            f"as wide, and {beside.name} is not one ({what}); harvest both networks with the same "
            "flags but --subject."
        )


def _labels(store: Store, beside: Store) -> tuple[str, str]:
    """What two stores are called beside each other: their subjects, where these differ."""
    names = (str(store.spec["subject"].get("name")), str(beside.spec["subject"].get("name")))
    return names if names[0] != names[1] else (store.name, beside.name)


def check_orbits(config: TrainConfig, store: Store) -> None:
    """Raise ConfigError where a config and a store do not agree on orbits."""
    group, control = store.group, config.control
    if control not in CONTROLS:
        raise ConfigError(
            f"--control is one of {', '.join(CONTROLS)}, and not {control!r}"
            f"{near(control, CONTROLS)}."
        )
    _check_single_elements(config, store)
    if group is None and (config.objective == "orbit" or control != "none"):
        what = f"--control {control}" if control != "none" else "an orbit crosscoder"
        raise ConfigError(
            f"{what} wants a store of orbits, and the inputs of {store.name} were taken through "
            "no group; make one with `tendril harvest orbits`, or name it with --store."
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


def _check_single_elements(config: TrainConfig, store: Store) -> None:
    """Raise ConfigError where single elements of orbits are asked for and cannot be had."""
    if config.orbits == "joined":
        return
    if store.group is None or config.objective == "orbit" or config.control != "none":
        what = (
            f"the inputs of {store.name} were taken through no group"
            if store.group is None
            else "an orbit crosscoder, or a control, is of whole orbits"
        )
        raise ConfigError(
            f"--orbits {config.orbits} takes single elements of a store of orbits, and {what}; "
            "leave it at joined."
        )
    if config.orbits == "each" and config.batch_size % len(store.group):
        raise ConfigError(
            f"--orbits each wants a --batch-size that is a multiple of {len(store.group)}, the "
            f"elements of {store.group.name}, and not {config.batch_size}."
        )
