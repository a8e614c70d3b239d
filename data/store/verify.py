"""Verify a store: checksums, digests, rows and statistics. One chunk is in memory at a time."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from ..cli import progress_bar
from ..errors import StoreDamagedError
from .chunks import StoredArrays
from .dtypes import NO_ROW, decode_rows
from .faults import metadata_faults, shard_faults, statistics_faults
from .folder import open_folder
from .moments import COMPILE_FROM, OUTLIER_TIMES, Moments, describe_rows, no_moments
from .record import METADATA, OVERWRITE, check_complete, check_identity, read_about, repair

LARGEST = 5  # how many rows with the largest norms are listed
SAME = 1e-9  # relative tolerance of statistics that were merged in another order


@final
@dataclass
class Tally:
    """Statistics of the valid rows of a site, over the rows read so far."""

    levels: Float64[np.ndarray, " q"]
    quantiles: Float64[np.ndarray, " q"]
    moments: Moments
    below: Int64[np.ndarray, " q"]  # rows whose norm is less than each quantile
    up_to: Int64[np.ndarray, " q"]  # rows whose norm is at most each quantile
    not_finite: int = 0
    outliers: int = 0
    whole: bool = True  # False once a chunk could not be read
    largest: list[tuple[float, int]] = field(default_factory=list)  # norm, row

    @property
    def median(self) -> float:
        """The median norm from the store's statistics; NaN if these are damaged."""
        return float(self.quantiles[self.levels == 0.5].sum()) if len(self.levels) else np.nan

    def add(
        self, described: Moments, norms: Float32[np.ndarray, " n"], rows: Int64[np.ndarray, " n"]
    ) -> None:
        """Add finite rows."""
        self.moments = self.moments.merge(described)
        ordered = np.sort(norms).astype(np.float64)
        self.below += np.searchsorted(ordered, self.quantiles, side="left")
        self.up_to += np.searchsorted(ordered, self.quantiles, side="right")
        self.outliers += int((norms > OUTLIER_TIMES * self.median).sum())
        few = np.argsort(norms)[-LARGEST:]
        pairs = zip(norms[few].tolist(), rows[few].tolist(), strict=True)
        self.largest = heapq.nlargest(LARGEST, [*self.largest, *pairs])


@dataclass(frozen=True)
class Verified:
    """What `verify_store` found. A store without faults is exactly what was written."""

    store: str
    files: int
    faults: list[str]
    sites: dict[str, dict[str, Any]]


def verify_store(location: str, progress: bool = False) -> Verified:
    """Verify a complete store.

    Checks every chunk against its checksum, every file against its digest, that every valid row
    is finite and has the stored norm, and that the statistics are those of the rows. Raises
    StoreNotFoundError, StoreIncompleteError, StoreVersionError, and StoreDamagedError if the root
    or the list of files cannot be read.
    """
    folder = open_folder(location)
    about = read_about(folder)
    if about.get("complete") is False:
        check_complete(folder, about)
    damaged = metadata_faults(folder)
    found = [str(fault) for fault in damaged.values()]
    if METADATA in damaged:  # the layout cannot be trusted
        return Verified(location, 1, found, {})
    try:
        check_identity(folder, about)
    except StoreDamagedError as error:
        return Verified(location, 1, [*found, str(error)], {})
    arrays = StoredArrays(location, check_files=False)
    tallies = {site: _begin(arrays, site) for site in arrays.layout.widths}
    sizes = folder.sizes()
    for shard in progress_bar(range(arrays.layout.shards), desc="verify", disable=not progress):
        found += [str(fault) for fault in shard_faults(arrays, shard, sizes)]
        for site, tally in tallies.items():
            found += _scan(arrays, site, shard, tally)
    found += [str(fault) for fault in statistics_faults(arrays)]
    for site, tally in tallies.items():
        found += _compare(arrays, site, tally)
    sites = {site: _describe(arrays, tally) for site, tally in tallies.items()}
    return Verified(location, len(sizes), list(dict.fromkeys(found)), sites)


def quantile_levels(arrays: StoredArrays, site: str) -> Float64[np.ndarray, " q"]:
    """The levels of the stored norm quantiles."""
    at = f"statistics/{site}/norm_quantiles/{METADATA}"
    try:
        return np.array(arrays.metadata(at)["quantiles"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(
            f"{arrays.folder.location}/{at} must list the levels of the quantiles; got something "
            f"else ({error}). {OVERWRITE}"
        ) from error


def _begin(arrays: StoredArrays, site: str) -> Tally:
    try:
        levels = quantile_levels(arrays, site)
        quantiles = arrays.statistic(site, "norm_quantiles")
    except StoreDamagedError:
        levels = quantiles = np.zeros(0)  # `statistics_faults` reports it
    width = int(np.prod(arrays.layout.row_shape(site)))
    none = np.zeros(len(levels), np.int64)
    return Tally(levels, quantiles, no_moments(width), none, none.copy())


def _scan(arrays: StoredArrays, site: str, shard: int, tally: Tally) -> Iterator[str]:
    """Add the rows of a shard to a tally; yields faults: non-finite rows and wrong norms."""
    layout = arrays.layout
    first = shard * layout.chunks_per_shard
    start = shard * layout.rows_per_shard
    try:
        valid = arrays.column_shard("valid", shard)
        norms = arrays.column_shard(f"norms/{site}", shard)
        int8 = arrays.dtype == "int8"
        scales = arrays.column_shard(f"scales/{site}", shard) if int8 else None
    except StoreDamagedError:  # `shard_faults` reports it, as for chunks below
        tally.whole = False
        return
    for chunk in range(first, min(first + layout.chunks_per_shard, arrays.chunks)):
        whole = arrays.chunk_range(chunk)
        kept = np.flatnonzero(valid[whole.start - start : whole.stop - start])
        rows = kept + whole.start
        try:
            stored = arrays.read_chunk(site, chunk).reshape(len(whole), -1)[kept]
        except StoreDamagedError:
            tally.whole = False
            continue
        scale = None if scales is None else scales[rows - start]
        finite = finite_rows(stored, arrays.dtype, scale)
        if not finite.all():
            tally.not_finite += int((~finite).sum())
            yield (
                f"{(~finite).sum()} valid rows of chunk {chunk} of array activations/{site} hold "
                f"NaN or Inf; the first is {row_in_words(arrays, int(rows[~finite][0]))}. "
                f"{repair(arrays.folder, shard)}"
            )
        described, found = describe_rows(
            stored[finite],
            arrays.dtype,
            None if scale is None else scale[finite],
            compiled=layout.values >= COMPILE_FROM,
        )
        tally.add(described, found, rows[finite])
        stored_norms = norms[rows[finite] - start]
        wrong = ~np.isclose(found, stored_norms, rtol=1e-5, atol=0)
        if wrong.any():
            yield (
                f"{wrong.sum()} norms of array norms/{site} differ from those of the rows of chunk "
                f"{chunk}; the first is of {row_in_words(arrays, int(rows[finite][wrong][0]))}. "
                f"{repair(arrays.folder, shard)}"
            )


def finite_rows(
    stored_RD: Shaped[np.ndarray, "r d"], dtype: str, scale: Float32[np.ndarray, " r"] | None
) -> Bool[np.ndarray, " r"]:
    """True for stored rows whose values are all finite; -128 in int8 counts as NaN."""
    finite: Bool[np.ndarray, " r"] = np.isfinite(decode_rows(stored_RD, dtype, scale)).all(axis=1)
    if dtype == "int8":
        finite &= (stored_RD != NO_ROW["int8"]).all(axis=1)
    return finite


def _compare(arrays: StoredArrays, site: str, tally: Tally) -> Iterator[str]:
    """Stored statistics that differ from those of the rows, if all rows could be read."""
    if not tally.whole or tally.not_finite or not len(tally.levels):
        return
    count = tally.moments.count
    mean, variance, zeros = tally.moments.mean, tally.moments.variance, tally.moments.zeros
    deviation = np.sqrt(variance)
    wanted = {
        "mean": (mean, SAME * (np.abs(mean) + deviation)),
        "variance": (variance, SAME * (variance + mean**2)),
        "zeros": (zeros / max(count, 1), np.full(len(zeros), SAME)),
    }
    wrong = []
    for name, (values, slack) in wanted.items():
        try:
            stored = arrays.statistic(site, name).reshape(-1)
        except StoreDamagedError:
            continue
        if not (np.abs(stored - values) <= slack).all():
            wrong.append(name)
    # a quantile lies between two neighbours of the sorted norms, which counting can check:
    # x_k <= quantile <= x_(k+1) with k = floor(level (n - 1))
    place = np.floor(tally.levels * (count - 1) + 1e-6).astype(np.int64)
    if count and not ((tally.below <= place + 1) & (tally.up_to >= place)).all():
        wrong.append("norm_quantiles")
    for name in wrong:
        yield (
            f"statistics/{site}/{name} of {arrays.folder.location} differs from the statistics of "
            f"its rows. {repair(arrays.folder, 0)}"
        )


def _describe(arrays: StoredArrays, tally: Tally) -> dict[str, Any]:
    known = np.isfinite(tally.median) and tally.median > 0
    return {
        "valid_rows": tally.moments.count + tally.not_finite,
        "not_finite_rows": tally.not_finite,
        "median_norm": tally.median if known else None,
        "norm_outliers": tally.outliers if known else None,
        "largest": [
            {"norm": norm, "times_median": norm / tally.median if known else None}
            | dict(describe_row(arrays, row))
            for norm, row in tally.largest
        ],
    }


def describe_row(arrays: StoredArrays, row: int) -> Mapping[str, Any]:
    """The origin of a row: number and name of its input, and its index columns.

    Damaged columns are left out.
    """
    layout = arrays.layout
    shard, place = divmod(row // layout.rows_per_input, layout.inputs_per_shard)
    about: dict[str, Any] = {"row": row, "input": row // layout.rows_per_input}
    try:
        about["name"] = str(arrays.record(shard)["inputs"][place])
        for column in layout.columns:
            stored = arrays.column_shard(column, shard)
            about[column] = int(stored[row - shard * layout.rows_per_shard])
    except (StoreDamagedError, KeyError, IndexError):
        about.setdefault("name", "unknown")
    return about


def row_in_words(arrays: StoredArrays, row: int) -> str:
    """A row's number, input and index columns, for messages."""
    about = dict(describe_row(arrays, row))
    index, name = about.pop("input"), about.pop("name")
    place = "".join(f", {key} {value}" for key, value in about.items() if key != "row")
    return f"row {row} (input {index}, {name}{place})"
