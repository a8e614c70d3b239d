"""Read a complete store: rows by number, and shuffled batches on a device."""

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from functools import cache as remember
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, final, overload

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from .. import order
from ..cli import Shown
from ..errors import ConfigError, StoreDamagedError
from ..group.dihedral import Dihedral, group_of
from ..home import SCHEME, find_store
from .batches import Batches as Batches
from .chunks import StoredArrays
from .dtypes import ITEM_BYTES, decode_rows
from .moments import OUTLIER_TIMES, Moments
from .spec import blocks_of, full_site

if TYPE_CHECKING:
    from ..cards import Card
    from .labels import Labels

PARTS = ("train", "held_out", "all")
OUTLIER_RULES = ("keep", "drop", "cap")
WINDOW_BYTES = 2**29  # stored bytes of the default shuffle window
WINDOW_ROWS = 2**20  # at most, so that narrow rows do not delay the first batch


class BatchOptions(TypedDict, total=False):
    """The options of `Store.batches`, described there."""

    seed: int
    device: str | torch.device
    part: str
    held_out: float
    epochs: int | None
    window: int | Literal["all"] | None
    where: Bool[np.ndarray, " r"] | None
    rank: int
    ranks: int
    norm_outliers: str
    outlier_times: float
    along: "tuple[Store, Sequence[str]] | None"


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
    norm_outliers="keep",
    outlier_times=OUTLIER_TIMES,
    along=None,
)


def open_store(
    store: str | Path, cache: str | Path | None = None, home: str | None = None
) -> "Store":
    """Open a complete store by path, by fsspec URL (s3://bucket/store) or by name.

    `find_store` resolves names. Chunks read from a URL are kept in the folder `cache`, by default
    $TENDRIL_CACHE if that is set. Raises StoreNotFoundError, StoreIncompleteError,
    StoreVersionError, and StoreDamagedError if a file is missing or has the wrong size.
    """
    named = isinstance(store, str) and os.sep not in store and not Path(store).is_dir()
    return Store(find_store(store, home) if named else store, cache)


@final
class Store(Shown):
    """A complete store, for reading."""

    def __init__(self, path: str | Path, cache: str | Path | None = None) -> None:
        self.arrays = StoredArrays(path, cache)
        self.location = self.arrays.folder.location
        self.path = Path(path)  # meaningless if the location is a URL
        self.name = self.path.name if SCHEME in self.location else self.path.resolve().name
        about = self.arrays.about
        self.spec: dict[str, Any] = about["spec"]
        self.origin: dict[str, str] = about["origin"]
        self.rows = self.arrays.layout.rows
        self.sites = tuple(self.spec["sites"])
        self.chunk_rows = self.arrays.layout.rows_per_chunk
        self.column = remember(self.arrays.column)
        self._record = remember(self.arrays.record)

    def _card(self) -> "Card":
        return store_card(self)

    @property
    def group(self) -> Dihedral | None:
        """The group whose elements were applied to the inputs, or None.

        With a group, rows have shape [G, D] in the order of its elements.
        """
        return group_of(self.spec["inputs"])

    def width(self, site: str) -> int:
        """The width D of a site."""
        return self.arrays.layout.widths[self.check_site(site)]

    def grid(self, site: str) -> tuple[int, ...]:
        """Height and width of the activation map that a site's vectors were taken from."""
        return self.arrays.layout.grids.get(self.check_site(site), ())

    def check_site(self, site: str) -> str:
        """The full name of a site, which may be given by its short one (`resid_post.3`, or
        `resid_post.-1` for the last block). Raises ConfigError, listing the sites, if the store
        does not have it."""
        full = full_site(site, self.sites, blocks_of(self.origin))
        if full not in self.sites:
            raise ConfigError(
                f"the site must be one of {', '.join(self.sites)}, the sites of the store "
                f"{self.name}; got {site!r}. Choose one of them, or harvest that site."
            )
        return full

    def moments(self, site: str) -> Moments:
        """Count, mean, variance and number of zeros over the valid rows of a site, in float64."""
        count = int(self.arrays.about["valid_rows"])
        mean, variance, zeros = (
            self.arrays.statistic(self.check_site(site), name).reshape(-1)
            for name in ("mean", "variance", "zeros")
        )
        return Moments(count, mean, variance * count, np.rint(zeros * count).astype(np.int64))

    def norm_quantiles(self, site: str) -> Float64[np.ndarray, " q"]:
        """Quantiles of the L2 norms of the rows, at the levels `data.store.moments.QUANTILES`."""
        return self.arrays.statistic(self.check_site(site), "norm_quantiles")

    def norms(self, site: str) -> Float32[np.ndarray, " r"]:
        """The L2 norm of every row of a site; NaN for invalid rows."""
        return self.column(f"norms/{self.check_site(site)}")

    def norm_limit(self, site: str, times: float = OUTLIER_TIMES) -> float:
        """`times` the median norm of a site, above which a norm is an outlier."""
        return times * float(np.nanmedian(self.norms(site)))

    def norm_outliers(self, site: str, times: float = OUTLIER_TIMES) -> Bool[np.ndarray, " r"]:
        """True for rows whose norm exceeds `times` the median norm."""
        outliers: Bool[np.ndarray, " r"] = self.norms(site) > self.norm_limit(site, times)
        return outliers

    def input_name(self, index: int) -> str:
        """The name of input number `index`, e.g. the path of an image in its folder."""
        shard, place = divmod(int(index), self.arrays.layout.inputs_per_shard)
        return str(self._record(shard)["inputs"][place])

    def labels(self) -> "Labels | None":
        """The classes of the inputs; None if the store has none.

        They are those on record. An earlier version recorded none; of a folder of images the
        classes are then the subfolders in the names of its inputs.
        """
        from .labels import FILE, folder_labels, labels_of  # a training needs none

        inputs = self.arrays.layout.inputs
        if self.arrays.folder.size(FILE) is None:
            names = [self.input_name(i) for i in range(inputs)]
            return folder_labels(names) if self.spec["inputs"].get("kind") == "folder" else None
        try:
            return labels_of(self.arrays.metadata(FILE), inputs)
        except ValueError as error:
            raise StoreDamagedError(
                f"{self.location}/{FILE} must hold the class of each input; got {error}. Run the "
                "same harvest again with --overwrite."
            ) from error

    def read(self, site: str, rows: slice | Int[np.ndarray, " n"]) -> Float32[np.ndarray, " n *d"]:
        """Rows by slice or by number, in the given order; invalid rows are NaN."""
        site = self.check_site(site)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.rows)
            assert step == 1, "a slice of rows must have step 1"
            rows = np.arange(start, stop)
        chosen = np.empty((len(rows), *self.arrays.layout.row_shape(site)), dtype=np.float32)
        chunks = rows // self.chunk_rows
        int8 = self.arrays.dtype == "int8"
        for chunk in np.unique(chunks):
            places = np.flatnonzero(chunks == chunk)
            contiguous = places[-1] - places[0] == len(places) - 1  # a slice avoids a copy
            at = slice(places[0], places[-1] + 1) if contiguous else places
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
        """Shuffled batches of valid rows, as float32 on `device`.

        A batch has shape [n, D], or [n, G, D] with a group. For several sites it is a dict with
        one such tensor per site, by its full name, aligned row by row.

        seed: determines the order, together with the epoch and the rank.
        device: where batches live; "cpu" by default.
        part: "train", "held_out" (a fraction of the *inputs*, the same in every run) or "all".
        held_out: the held-out fraction of the inputs, 0.05 by default.
        epochs: how many passes to make; None, the default, never ends. Every valid row of the
            part comes once per epoch. Batches continue over the end of an epoch, so only the last
            batch of the last epoch may be short.
        window: how many chunks are shuffled together; they are chosen anew every epoch. "all"
            keeps all rows in memory (on a GPU in GPU memory) and shuffles them exactly. The
            default is as many chunks as fit into 512 MiB and 2^20 rows.
        where: keeps only some rows, e.g. `where=store.column("y") > 3`.
        rank, ranks: each of `ranks` processes gets other rows; together they get all of them.
        norm_outliers: "keep", "drop" or "cap" rows whose norm exceeds `outlier_times` the median
            norm. "cap" scales them down to that norm.
        outlier_times: 10 by default.
        along: another store of the same inputs, and the sites that are read there: with the same
            options otherwise, both give the same rows in the same order, also if they differ in
            width or in chunks.

        Raises ConfigError for an unknown site, an unknown option or value, and if no rows remain.
        """
        how = _with_defaults(options)
        sites = tuple(map(self.check_site, (site,) if isinstance(site, str) else site))
        _check_values(how, batch_size)
        block, window = self._order(sites, how)
        rule = how["norm_outliers"]
        limits = (
            {s: self.norm_limit(s, how["outlier_times"]) for s in sites} if rule != "keep" else {}
        )
        return Batches(
            self.arrays,
            sites,
            batch_size,
            self._wanted(how, limits, block),
            single=isinstance(site, str),
            seed=how["seed"],
            device=torch.device(how["device"]),
            epochs=how["epochs"],
            window=window,
            rank=how["rank"],
            ranks=how["ranks"],
            multipliers={s: self._multiplier(s, limits if rule == "cap" else {}) for s in sites},
            together=block // self.chunk_rows,
        )

    def _order(self, sites: Sequence[str], how: "BatchOptions") -> tuple[int, int]:
        """The rows of a block, which is a whole number of chunks, and the blocks of a window."""
        if how["along"] is None:
            return self.chunk_rows, self._window(sites, how["window"], self.chunk_rows)
        other, theirs = how["along"]
        block = math.lcm(self.chunk_rows, other.chunk_rows)
        ours = self._window(sites, how["window"], block)
        return block, min(ours, other._window(theirs, how["window"], block))

    def _wanted(
        self, how: "BatchOptions", limits: Mapping[str, float], block: int
    ) -> Bool[np.ndarray, " r"]:
        """True for the rows that the options select."""
        wanted: Bool[np.ndarray, " r"] = self.column("valid").copy()
        if how["part"] != "all":
            held_out = order.held_out(self.column("input"), how["held_out"])
            wanted &= held_out if how["part"] == "held_out" else ~held_out
        if how["where"] is not None:
            wanted &= how["where"]
        if how["norm_outliers"] == "drop":
            for site, limit in limits.items():
                wanted &= ~(self.norms(site) > limit)
        if not wanted.any():
            raise ConfigError(
                f"the part {how['part']!r} of the store {self.name} has no valid rows with "
                f"held_out={how['held_out']}{' and `where`' if how['where'] is not None else ''}. "
                "Harvest more inputs, or choose another held_out fraction."
            )
        rank, ranks = how["rank"], how["ranks"]
        chunks = len(np.unique(np.flatnonzero(wanted) // block)) if ranks > 1 else 1
        if not 0 <= rank < ranks <= chunks:
            raise ConfigError(
                f"each rank needs a chunk of its own; got rank {rank} of {ranks}, and the selected "
                f"rows of the store {self.name} lie in {chunks} chunks. Use fewer processes, or "
                "harvest more inputs."
            )
        return wanted

    def _window(self, sites: Sequence[str], window: int | Literal["all"] | None, block: int) -> int:
        """The number of blocks in a shuffle window."""
        layout = self.arrays.layout
        if window == "all":
            return self.arrays.chunks
        if window is not None:
            if window < 1:
                raise ConfigError(f"window must be at least 1 chunk; got {window}.")
            return window
        row_values = sum(int(np.prod(layout.row_shape(s))) for s in sites)
        block_bytes = row_values * ITEM_BYTES[self.arrays.dtype] * block
        return max(1, min(WINDOW_BYTES // block_bytes, WINDOW_ROWS // block))

    def _multiplier(
        self, site: str, limits: Mapping[str, float]
    ) -> Float32[np.ndarray, " r"] | None:
        """The factor of each stored row: the scale of int8 rows times the cap of outliers."""
        factor: Shaped[np.ndarray, " r"] | None = None
        if self.arrays.dtype == "int8":
            factor = self.column(f"scales/{site}")
        if site in limits:
            with np.errstate(divide="ignore"):
                cap = np.fmin(1, limits[site] / self.norms(site)).astype(np.float32)
            factor = cap if factor is None else factor * cap
        return factor


def store_card(store: Store) -> "Card":
    """What Python and a notebook show of a store."""
    from ..cards import Card  # a training needs none

    spec, layout = store.spec, store.arrays.layout
    unit = "orbits" if store.group else "rows"
    lines = {"subject": str(spec["subject"].get("name", "unknown"))}
    for site in store.sites:
        grid = " x ".join(map(str, store.grid(site)))
        lines[site] = f"width {store.width(site)}" + (f", map {grid}" if grid else "")
    lines |= {
        "inputs": f"{layout.inputs:,} ({spec['inputs'].get('kind', 'unknown')})",
        "positions": _positions(spec["positions"]),
        "dtype": str(spec["dtype"]),
    }
    headline = f"{store.rows:,} {unit} of {', '.join(store.sites)} from {layout.inputs:,} inputs"
    return Card("Store", store.name, headline, lines, store.location)


def _positions(rule: Mapping[str, Any]) -> str:
    drawn = rule.get("rule", "unknown")
    return str(drawn) if drawn == "all" else f"{rule.get('per_input')} of each input, by {drawn}"


def _with_defaults(options: BatchOptions) -> BatchOptions:
    """All options of `Store.batches`. Raises ConfigError for an unknown name."""
    for name in options.keys() - BATCH_DEFAULTS.keys():
        near = difflib.get_close_matches(name, BATCH_DEFAULTS, n=1)
        instead = f"Did you mean {near[0]!r}?" if near else "Leave it out."
        raise ConfigError(
            f"an option of Store.batches must be one of {', '.join(BATCH_DEFAULTS)}; got "
            f"{name!r}. {instead}"
        )
    return BATCH_DEFAULTS | options


def _check_values(how: BatchOptions, batch_size: int) -> None:
    if how["part"] not in PARTS:
        raise ConfigError(f"part must be one of {', '.join(PARTS)}; got {how['part']!r}.")
    if how["norm_outliers"] not in OUTLIER_RULES:
        raise ConfigError(
            f"norm_outliers must be one of {', '.join(OUTLIER_RULES)}; got "
            f"{how['norm_outliers']!r}."
        )
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1; got {batch_size}.")
