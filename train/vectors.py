"""The vectors of a run: one site of a store, or several joined.

A vector of a store of orbits is a whole orbit: the vectors of its elements joined, each of them the
sites joined. A dictionary that knows no group can take single elements instead.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral
from tendril.data.home import find_store
from tendril.data.store.moments import OUTLIER_TIMES, Moments, moments_of, no_moments
from tendril.data.store.reader import Batches, Store, open_store
from tendril.models.dictionaries.sae import Stored

from .checks import stored_sites
from .config import OBJECTIVES, TrainConfig, check_choice
from .outliers import (
    Channels,
    IsOutlier,
    Rule,
    channels_of,
    has_outliers,
    outlier_test,
    outlier_warnings,
    used_norms,
)
from .trainer import ALONE, Ranks

SAMPLE = 65_536  # rows whose mean stands for that of all, where some are dropped or capped

Damaged = Callable[[Tensor], Tensor]  # a batch -> the same, as a control damages it


@final
@dataclass(frozen=True)
class Left:
    """What other dictionaries leave: a function of vectors, and moments of a sample."""

    of: Damaged
    moments: Moments
    fold: Callable[[Stored], Stored] | None = None


@final
@dataclass(frozen=True)
class Source:
    """Sites of a store, for one dictionary; with `paired`, sites of the store of another network on
    the same inputs, too: `paired_sites`, or those of the same names."""

    store: Store
    sites: tuple[str, ...]
    paired: Store | None = None
    joined: bool = True
    """True if orbits are taken whole."""
    norm_outliers: Rule = "keep"
    outlier_times: float = OUTLIER_TIMES
    paired_sites: tuple[str, ...] = ()
    left: Left | None = None  # of one site without a group

    @property
    def stores(self) -> tuple[tuple[Store, tuple[str, ...]], ...]:
        """The store with its sites, and the paired one with its own."""
        one = (self.store, self.sites)
        return (
            (one,) if self.paired is None else (one, (self.paired, self.paired_sites or self.sites))
        )

    @property
    def parts(self) -> dict[str, tuple[Store, str]]:
        """What is joined to a vector: name of the part -> store and site."""
        if self.paired is None:
            return {site: (self.store, site) for site in self.sites}
        from tendril.data.store.paired import network_names  # few runs are of two

        named = zip(network_names(self.store, self.paired), self.stores, strict=True)
        return {f"{who}:{s}": (store, s) for who, (store, sites) in named for s in sites}

    @property
    def name(self) -> str:
        """The sites, in messages and in the run's identity."""
        return "+".join(self.parts)

    @property
    def blocks(self) -> dict[str, int]:
        """The width of each part, of one element."""
        return {name: store.width(site) for name, (store, site) in self.parts.items()}

    @property
    def group(self) -> Dihedral | None:
        """The group, of a store of orbits."""
        return self.store.group

    @property
    def elements(self) -> int:
        """The number of elements joined to a vector."""
        return len(self.group) if self.group and self.joined else 1

    @property
    def joint(self) -> tuple[int, ...]:
        """The widths of what a crosscoder joins: the elements of an orbit, or else several sites;
        empty for a single site."""
        if self.group and self.joined:
            return (sum(self.blocks.values()),) * self.elements
        return tuple(self.blocks.values()) if len(self.parts) > 1 else ()

    @property
    def width(self) -> int:
        """D of the vectors."""
        return self.elements * sum(self.blocks.values())

    def training(
        self, config: TrainConfig, device: torch.device, ranks: Ranks = ALONE
    ) -> "Vectors":
        """Endless vectors to train on; of several processes, those of this one."""
        return self._vectors(config, device, "train", None, ranks)

    def once(
        self, config: TrainConfig, device: torch.device, part: str = "held_out"
    ) -> Iterator[Float[Tensor, "n d"]]:
        """One pass over the vectors of a part, train or held_out."""
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
        others = self.stores[::-1] if self.paired is not None else (None,)
        streams = [
            store.batches(
                sites,
                ranks.rows_of(config.batch_size) // each,
                seed=config.order_seed,
                device=device,
                part=part,
                held_out=config.held_out,
                epochs=epochs,
                rank=ranks.rank,
                ranks=ranks.ranks,
                norm_outliers=config.norm_outliers,
                outlier_times=config.outlier_times,
                along=along,
            )
            for (store, sites), along in zip(self.stores, others, strict=True)
        ]
        return Vectors(streams, self._damage(config), config.orbits)

    def _damage(self, config: TrainConfig) -> Damaged | None:
        if self.left:
            return self.left.of
        if self.group is None:
            return shuffled_units if config.control == "shuffled-units" else None
        from .orbits import Damage

        return Damage(config.control, self.group, config.seed)

    def scale(self) -> float | Float[Tensor, " d"]:
        """The factor of each part that makes E||x||^2 = D there, or E||x - mean||^2 = D where it is
        centred: one number for one part, one per dimension for several. Of orbits, ||x||^2 and D
        are those of the whole orbit. The mean is over the rows of the store without those that are
        dropped, and with the capped ones capped.

        Raises ConfigError if all vectors are the same, or hold NaN or infinity.
        """
        scales, blocks = self.scales(), self.blocks
        if len(scales) == 1:
            return next(iter(scales.values()))
        parts = [torch.full((blocks[name],), scale) for name, scale in scales.items()]
        return torch.cat(parts).repeat(self.elements)

    def scales(self) -> dict[str, float]:
        """The factor of each part. Raises ConfigError as `scale` does."""
        return {name: self._scale(name, store, site) for name, (store, site) in self.parts.items()}

    def _scale(self, name: str, store: Store, site: str) -> float:
        moments = self._moments(store, site)
        size = float((moments.variance + moments.mean**2).sum())
        if not math.isfinite(size):
            from .checks import refuse_not_finite

            refuse_not_finite(store, (site,))
        if not moments.variance.sum() > 0:
            raise ConfigError(
                f"the vectors of a site must differ; all those of {site} in {store.name} are the "
                "same. Choose another --site."
            )
        if self.alters:
            size = self._size_as_used(store, site)
        elements = len(self.group) if self.group else 1  # the store's moments are those of orbits
        channels = self.channels[name]
        if channels.off_centre:
            size = elements * float(channels.variance_C.sum())
        return math.sqrt(elements * store.width(site) / size)

    @cached_property
    def channels(self) -> dict[str, Channels]:
        """Mean and variance of the channels of each part, over the rows that batches give: of all
        rows of the store, or, if rows are dropped or capped, of a sample of the others."""
        if not self.alters:
            return {
                name: channels_of(self._moments(store, site), store.width(site))
                for name, (store, site) in self.parts.items()
            }
        found = {id(store): self._sampled(store, sites) for store, sites in self.stores}
        return {name: found[id(store)][site] for name, (store, site) in self.parts.items()}

    def _moments(self, store: Store, site: str) -> Moments:
        return self.left.moments if self.left else store.moments(site)

    def _sampled(self, store: Store, sites: Sequence[str]) -> dict[str, Channels]:
        """`channels` of a store from a sample of its rows, the same for all seeds."""
        total = {site: no_moments(store.width(site)) for site in sites}
        batches = store.batches(
            sites,
            4096,
            part="all",
            epochs=1,
            norm_outliers=self.norm_outliers,
            outlier_times=self.outlier_times,
        )
        rows = 0
        try:
            for batch in batches:
                for site, x in batch.items():
                    part = moments_of(x.reshape(-1, x.shape[-1]).numpy())
                    total[site] = total[site].merge(part)
                rows += len(x)
                if rows >= SAMPLE:
                    break
        finally:
            batches.close()
        return {site: channels_of(moments, len(moments.mean)) for site, moments in total.items()}

    @property
    def centred(self) -> bool:
        """True if the mean of any part is subtracted before training."""
        return any(channels.off_centre for channels in self.channels.values())

    def centre(self) -> Float[Tensor, " d"] | None:
        """What is subtracted from vectors before they are scaled: the mean of each part whose mean
        is large, zero for the others; None if there is none."""
        if not self.centred:
            return None
        parts = [
            channels.mean_C if channels.off_centre else np.zeros_like(channels.mean_C)
            for channels in self.channels.values()
        ]
        return torch.from_numpy(np.concatenate(parts)).float().repeat(self.elements)

    @property
    def outlying(self) -> bool:
        """True if there are norm outliers in any part."""
        return any(has_outliers(store, sites, self.outlier_times) for store, sites in self.stores)

    @cached_property
    def warnings(self) -> list[str]:
        """What makes figures of these vectors say little; see `outlier_warnings`."""
        return outlier_warnings(self.parts, self.channels, self.norm_outliers, self.outlier_times)

    @property
    def alters(self) -> bool:
        """True if rows are dropped or capped, so that moments of the store are not those of the
        vectors."""
        return self.norm_outliers != "keep" and self.outlying

    @property
    def outlier_test(self) -> IsOutlier | None:
        """A test for vectors with a norm outlier; None if the vectors have none."""
        if self.norm_outliers != "keep" or not self.outlying:
            return None
        limits = [s.norm_limit(site, self.outlier_times) for s, site in self.parts.values()]
        of_orbit = len(self.group) if self.group else 1
        return outlier_test(limits, list(self.blocks.values()), self.elements, of_orbit)

    def _size_as_used(self, store: Store, site: str) -> float:
        """The mean of ||x||^2 over the rows that are not dropped, as they are after capping."""
        rule = self.norm_outliers
        sites = next(sites for one, sites in self.stores if one is store)
        norms = used_norms(store, site, sites, rule, self.outlier_times)
        size = float(np.square(norms).mean()) if len(norms) else 0.0
        if not size > 0:
            raise ConfigError(
                f"rows that remain under --norm-outliers {rule} must differ from zero; those of "
                f"{site} in {store.name} do not, because more than half of its rows are zero. Pass "
                "--norm-outliers keep, or choose another --site."
            )
        return size


@final
class Vectors(Iterator[Float[Tensor, "n d"]]):
    """Batches of a store as vectors, with sites joined, and elements, if there are any. Two stores
    of the same inputs are read in the same order and joined row by row."""

    def __init__(
        self,
        streams: Sequence[Batches[dict[str, Tensor]]],
        damage: Damaged | None,
        orbits: str = "joined",
    ) -> None:
        self._streams, self._damage, self._orbits = streams, damage, orbits

    def __next__(self) -> Float[Tensor, "n d"]:
        rows = [x for stream in self._streams for x in next(stream).values()]
        x = torch.cat(rows, dim=-1) if len(rows) > 1 else rows[0]
        if self._damage is None:
            return x
        if self._orbits == "joined":
            return self._damage(x).flatten(1)
        return x.flatten(0, 1) if self._orbits == "each" else x[:, 0]

    def state(self) -> dict[str, int]:
        """All that `restore` needs to continue from here."""
        return self._streams[0].state()

    def restore(self, state: Mapping[str, int]) -> None:
        """Continue from a state."""
        for stream in self._streams:
            stream.restore(state)

    def close(self) -> None:
        """Release threads and memory."""
        for stream in self._streams:
            stream.close()


def shuffled_units(x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """x'[n, d] = x[(n + d) mod N, d]: each unit keeps its values and loses the company of others.

    Rows come in random order, so units of a batch of N >= D rows become independent.
    """
    count, width = x_ND.shape
    rows_N1 = torch.arange(count, device=x_ND.device)[:, None]
    units_D = torch.arange(width, device=x_ND.device)
    return x_ND.gather(0, (rows_N1 + units_D) % count)


def store_of(config: TrainConfig) -> Store:
    """The store that a config names. Raises what `open_store` raises."""
    return open_store(find_store(config.store, config.home))


def source_of(config: TrainConfig, store: Store) -> Source:
    """The sites of a store that a config names; the first of the store by default.

    Raises ConfigError for a site that is not stored, for orbits that the store does not have, and
    for two stores of different inputs.
    """
    check_choice("--objective", config.objective, OBJECTIVES)
    whole = config.orbits == "joined" and config.control == "none"
    if store.group or config.objective == "equivariant" or not whole:
        from .orbits import check_orbits

        check_orbits(config, store)
    sites = stored_sites(store, config.sites or (config.site or store.sites[0],))
    how = (config.orbits == "joined", config.norm_outliers, config.outlier_times)
    if config.remove_span:
        from .left import moments_left, without_span

        of, fold = without_span(config, store, sites)
        left = Left(of, moments_left(store, sites[0], of, SAMPLE), fold)
        return Source(store, sites, None, *how, left=left)
    if not config.paired_store:
        return Source(store, sites, None, *how)
    paired = open_store(find_store(config.paired_store, config.home))
    from tendril.data.store.paired import check_aligned

    theirs = stored_sites(paired, config.paired_sites or sites)
    check_aligned(store, paired)
    return Source(store, sites, paired, *how, theirs)
