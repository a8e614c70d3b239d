"""A complete store -> rows by number, and shuffled batches on a device."""

import os
from collections.abc import Mapping, Sequence
from functools import cache as remember
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, final, overload

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from .. import order
from ..errors import ConfigError
from ..group.dihedral import Dihedral, group_of
from ..home import SCHEME, find_store
from .batches import Batches as Batches
from .chunks import StoredArrays
from .dtypes import ITEM_BYTES, decode_rows
from .moments import HUGE, Moments
from .record import read_record

PARTS = ("train", "held_out", "all")
HUGE_RULES = ("keep", "drop", "cap")
WINDOW_BYTES = 2**29  # of stored rows that are mixed at a time, unless asked otherwise
WINDOW_ROWS = 2**20  # at most: of narrow rows, so that the first batch is soon there


class BatchOptions(TypedDict, total=False):
    """What `Store.batches` may be told; it says what each of them means."""

    seed: int
    device: str | torch.device
    part: str
    held_out: float
    epochs: int | None
    window: int | Literal["all"] | None
    where: Bool[np.ndarray, " r"] | None
    rank: int
    ranks: int
    huge: str
    huge_times: float


BATCH_DEFAULTS = BatchOptions(
    seed=0,
    device="cpu",
    part="train",
    held_out=0.05,
    epochs=None,
    window=None,
    where=None,
    rank=0,
    ranks=1,
    huge="keep",
    huge_times=HUGE,
)


def open_store(
    store: str | Path, cache: str | Path | None = None, home: str | None = None
) -> "Store":
    """Open a complete store: at a path, at any fsspec URL (s3://bucket/store), or by its name,
    as `find_store` resolves it.

    Chunks of a URL are kept in the folder `cache` (by default $TENDRIL_CACHE, where set).
    Raises StoreNotFoundError, StoreIncompleteError, StoreVersionError, and StoreDamagedError
    where a file is missing or cut short.
    """
    named = isinstance(store, str) and os.sep not in store and not Path(store).is_dir()
    return Store(find_store(store, home) if named else store, cache)


@final
class Store:
    """A complete store, for reading."""

    def __init__(self, path: str | Path, cache: str | Path | None = None) -> None:
        self.arrays = StoredArrays(path, cache)
        self.location = self.arrays.folder.location
        self.path = Path(path)  # of no use where the location is a URL
        self.name = self.path.name if SCHEME in self.location else self.path.resolve().name
        about = self.arrays.about
        self.spec: dict[str, Any] = about["spec"]
        self.origin: dict[str, str] = about["origin"]
        self.rows = self.arrays.layout.rows
        self.sites = tuple(self.spec["sites"])
        self.chunk_rows = self.arrays.layout.rows_per_chunk
        self.column = remember(self.arrays.column)
        self._record = remember(lambda shard: read_record(self.arrays.folder, shard))

    @property
    def group(self) -> Dihedral | None:
        """The group that inputs were taken through; rows are then [G, D], in its order."""
        return group_of(self.spec["inputs"])

    def width(self, site: str) -> int:
        """D of a site."""
        return self.arrays.layout.widths[self.check_site(site)]

    def grid(self, site: str) -> tuple[int, ...]:
        """Rows and columns of the map that a site's vectors were taken from."""
        return self.arrays.layout.grids.get(self.check_site(site), ())

    def check_site(self, site: str) -> str:
        """The site itself; raises ConfigError, with those there are, where it is not stored."""
        if site not in self.sites:
            raise ConfigError(
                f"the store {self.name} has the sites {', '.join(self.sites)}, and not "
                f"{site!r}; choose one of them with --site, or harvest that one."
            )
        return site

    def moments(self, site: str) -> Moments:
        """Count, mean and variance of the valid rows of a site, float64."""
        count = int(self.arrays.about["valid_rows"])
        mean, variance, zeros = (
            self.arrays.statistic(self.check_site(site), name).reshape(-1)
            for name in ("mean", "variance", "zeros")
        )
        return Moments(count, mean, variance * count, np.rint(zeros * count).astype(np.int64))

    def norm_quantiles(self, site: str) -> Float64[np.ndarray, " q"]:
        """Quantiles of the rows' L2 norms, at the levels `data.writer.QUANTILES`."""
        return self.arrays.statistic(self.check_site(site), "norm_quantiles")

    def norms(self, site: str) -> Float32[np.ndarray, " r"]:
        """The L2 norm of every row of a site; NaN where the row is not valid."""
        return self.column(f"norms/{self.check_site(site)}")

    def huge_rows(self, site: str, times: float = HUGE) -> Bool[np.ndarray, " r"]:
        """Which rows have a norm of more than `times` the median."""
        norms = self.norms(site)
        huge: Bool[np.ndarray, " r"] = norms > times * np.nanmedian(norms)
        return huge

    def input_name(self, index: int) -> str:
        """What input number `index` was called, e.g. the image's path in its folder."""
        shard, place = divmod(int(index), self.arrays.layout.inputs_per_shard)
        return str(self._record(shard)["inputs"][place])

    def read(self, site: str, rows: slice | Int[np.ndarray, " n"]) -> Float32[np.ndarray, " n *d"]:
        """Rows by number, in the order asked for; invalid rows are NaN."""
        self.check_site(site)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.rows)
            assert step == 1, "rows are read by a slice of step 1, or by number"
            rows = np.arange(start, stop)
        chosen = np.empty((len(rows), *self.arrays.layout.row_shape(site)), dtype=np.float32)
        chunks = rows // self.chunk_rows
        int8 = self.arrays.dtype == "int8"
        for chunk in np.unique(chunks):
            places = np.flatnonzero(chunks == chunk)
            in_a_row = places[-1] - places[0] == len(places) - 1  # then no copy by number
            at = slice(places[0], places[-1] + 1) if in_a_row else places
            within = rows[at] - int(chunk) * self.chunk_rows
            scale = self.column(f"scales/{site}")[rows[at]] if int8 else None
            stored = self.arrays.read_chunk(site, int(chunk))[within]
            chosen[at] = decode_rows(stored, self.arrays.dtype, scale)
        return chosen

    @overload
    def batches(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self, site: str, batch_size: int, **options: Unpack["BatchOptions"]
    ) -> Batches[torch.Tensor]: ...

    @overload
    def batches(
        self, site: Sequence[str], batch_size: int, **options: Unpack["BatchOptions"]
    ) -> Batches[dict[str, torch.Tensor]]: ...

    def batches(
        self, site: str | Sequence[str], batch_size: int, **options: Unpack["BatchOptions"]
    ) -> Batches[Any]:
        """Shuffled batches of valid rows, float32 on `device`: [n, D], or [n, G, D] of a group;
        of several sites a dict of them, aligned row by row.

        Over an epoch every valid row of the part comes once; batches flow over the border of
        epochs, so that all are full; with `epochs` given the stream ends, the last one short.
        `part` is train, held_out (a share of the *inputs*, the same in every run) or all;
        `where` keeps only some rows, e.g. `where=store.column("y") > 3`. Each of `ranks` gets
        other rows, all of them together everything.

        `window` is how many chunks are mixed at a time: `"all"` holds all rows in memory (on a
        GPU in its memory) and shuffles them exactly, and so does the default where they take
        no more than half a gigabyte and are no more than a million; else it is as many chunks
        as that holds, chosen anew every epoch. Rows of a `huge` norm (more than `huge_times`
        the median) are kept, dropped, or capped: shortened to that norm.
        """
        how = BATCH_DEFAULTS | options
        sites = (site,) if isinstance(site, str) else tuple(site)
        for name in sites:
            self.check_site(name)
        self._check(how, batch_size)
        huge = how["huge"]
        limits = (
            {s: how["huge_times"] * float(np.nanmedian(self.norms(s))) for s in sites}
            if huge != "keep"
            else {}
        )
        return Batches(
            self.arrays,
            sites,
            batch_size,
            self._wanted(how, limits),
            single=isinstance(site, str),
            seed=how["seed"],
            device=torch.device(how["device"]),
            epochs=how["epochs"],
            window=self._window(sites, how["window"]),
            rank=how["rank"],
            ranks=how["ranks"],
            multipliers={s: self._multiplier(s, limits if huge == "cap" else {}) for s in sites},
        )

    def _wanted(self, how: "BatchOptions", limits: Mapping[str, float]) -> Bool[np.ndarray, " r"]:
        wanted: Bool[np.ndarray, " r"] = self.column("valid").copy()
        if how["part"] != "all":
            aside = order.held_out(self.column("input"), how["held_out"])
            wanted &= aside if how["part"] == "held_out" else ~aside
        if how["where"] is not None:
            wanted &= how["where"]
        if how["huge"] == "drop":
            for site, limit in limits.items():
                wanted &= ~(self.norms(site) > limit)
        if not wanted.any():
            raise ConfigError(
                f"the {how['part']} part of {self.name} has no valid rows at "
                f"held_out={how['held_out']}{' and `where`' if how['where'] is not None else ''}; "
                "harvest more inputs, or choose another share."
            )
        rank, ranks = how["rank"], how["ranks"]
        chunks = len(np.unique(np.flatnonzero(wanted) // self.chunk_rows)) if ranks > 1 else 1
        if not 0 <= rank < ranks <= chunks:
            raise ConfigError(
                f"rank {rank} of {ranks} cannot read {self.name}: {chunks} of its chunks hold rows "
                "that are asked for, and each rank needs one; use fewer processes, or harvest more."
            )
        return wanted

    def _check(self, how: "BatchOptions", batch_size: int) -> None:
        if how["part"] not in PARTS:
            raise ConfigError(f"part is one of {', '.join(PARTS)}, and not {how['part']!r}.")
        if how["huge"] not in HUGE_RULES:
            raise ConfigError(f"huge is one of {', '.join(HUGE_RULES)}, and not {how['huge']!r}.")
        if batch_size < 1:
            raise ConfigError(f"a batch has at least one row, and not {batch_size}.")

    def _window(self, sites: Sequence[str], window: int | Literal["all"] | None) -> int:
        layout = self.arrays.layout
        if window == "all":
            return self.arrays.chunks
        if window is not None:
            if window < 1:
                raise ConfigError(f"a window has at least one chunk, and not {window}.")
            return window
        row_bytes = sum(int(np.prod(layout.row_shape(s))) for s in sites)
        chunk_bytes = row_bytes * ITEM_BYTES[self.arrays.dtype] * layout.rows_per_chunk
        return max(1, min(WINDOW_BYTES // chunk_bytes, WINDOW_ROWS // layout.rows_per_chunk))

    def _multiplier(
        self, site: str, limits: Mapping[str, float]
    ) -> Float32[np.ndarray, " r"] | None:
        """What stored rows are multiplied by: the scale of int8 rows, the cap of huge ones."""
        factor: Shaped[np.ndarray, " r"] | None = None
        if self.arrays.dtype == "int8":
            factor = self.column(f"scales/{site}")
        if site in limits:
            with np.errstate(divide="ignore"):
                cap = np.fmin(1, limits[site] / self.norms(site)).astype(np.float32)
            factor = cap if factor is None else factor * cap
        return factor
