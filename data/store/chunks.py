"""The arrays of a store, read chunk by chunk and checked; `verify` checks all of it.

Plain zarr reads the same; here a chunk goes from its file into the array of the caller with
one check and one copy, and an error says which rows are lost.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock, local
from typing import final

import numpy as np
from jaxtyping import Float64, Shaped, UInt8, UInt64

from ..errors import StoreDamagedError
from .codec import (
    ABSENT,
    CRC_BYTES,
    NOTHING,
    ChunkError,
    check_found,
    decode_chunk,
    extended,
    index_bytes,
    split_index,
)
from .folder import Folder, open_folder
from .layout import Layout
from .record import (
    DIGEST,
    METADATA,
    RECORDS,
    check_complete,
    damage,
    damaged_files,
    file_digest,
    layout_of,
    read_about,
    read_attributes,
    read_files,
    read_record,
    record_name,
    repair,
)

FETCHES = 16  # files or parts of them asked for at once where an answer takes its time
PIECE = 2**19  # bytes read and summed at a time
INDEXES_KEPT = 4096  # of shard files: a few hundred bytes each
STATISTICS = ("mean", "variance", "zeros", "norm_quantiles")
UNREADABLE = (ChunkError, ValueError, RuntimeError)  # what codecs raise of altered bytes


@final
class StoredArrays:
    """The arrays of a complete store, opened with all their files accounted for; where not
    `accounted`, a file that is missing or cut short is only told when it is read."""

    def __init__(
        self, location: str | Path, cache: str | Path | None = None, *, accounted: bool = True
    ) -> None:
        self.folder = open_folder(location, cache)
        self.about = read_about(self.folder)
        check_complete(self.folder, self.about)
        self.layout = layout_of(self.about)
        self.dtype: str = self.about["spec"]["dtype"]
        self._files = read_files(self.folder, self.layout, self.dtype)
        self._dtypes = self.layout.arrays(self.dtype)
        self._indexes: OrderedDict[str, UInt64[np.ndarray, "c 2"]] = OrderedDict()
        self._lock = Lock()
        self._scratch = local()  # a thread's memory for chunks as they lie on the disk
        if not accounted or not self.folder.listed:  # then a file is checked when it is read
            return
        sizes = self.folder.sizes()
        for shard in range(self.layout.shards):
            if record_name(shard) not in sizes:
                read_record(self.folder, shard)  # says what to do about it
        for name, size in damaged_files(self._files, sizes).items():
            raise self._damage(name, size)

    @property
    def chunks(self) -> int:
        """How many chunks a site has."""
        return -(-self.layout.rows // self.layout.rows_per_chunk)

    def chunk_range(self, chunk: int) -> range:
        """The rows of a chunk."""
        size = self.layout.rows_per_chunk
        return range(chunk * size, min((chunk + 1) * size, self.layout.rows))

    def read_chunk(
        self, site: str, chunk: int, out: Shaped[np.ndarray, "..."] | None = None
    ) -> Shaped[np.ndarray, " r *d"]:
        """The rows of a chunk as stored; into `out` where that is as long as a whole chunk.

        Raises StoreDamagedError, naming array, chunk and rows.
        """
        array, layout = f"activations/{site}", self.layout
        shape = (layout.rows_per_chunk, *layout.row_shape(site))
        rows = len(self.chunk_range(chunk))
        whole = out
        if whole is None or whole.shape != shape or not whole.flags.c_contiguous:
            whole = np.empty(shape, self._dtypes[array])
        shard, place = divmod(chunk, layout.chunks_per_shard)
        name = layout.shard_file(array, shard)
        for attempt in (1, 2):  # what a cache holds wrong is asked for once more
            offset, length = self._place(array, name, shard, place, chunk)
            try:
                self._fill(name, offset, length, whole)
                return whole[:rows]
            except UNREADABLE as error:
                self.folder.forget(name, offset, length)
                self._forget_index(name)
                if attempt == 2:
                    raise self._wrong(array, chunk, shard) from error
        raise AssertionError("the second attempt returns or raises")

    def _fill(self, name: str, start: int, length: int, whole: Shaped[np.ndarray, "..."]) -> None:
        """Read a chunk and decode it; what is not compressed is read to where it belongs."""
        if self.layout.compressor == "none" and length == whole.nbytes + CRC_BYTES:
            rows, closing = whole.reshape(-1).view(np.uint8), np.empty(CRC_BYTES, np.uint8)
            if self.folder.distant:  # one request, and what is forgotten if it is wrong
                self._read_into(name, start, [rows, closing])
                check_found(extended(NOTHING, rows), closing)
                return
            found = NOTHING
            for at in range(0, len(rows), PIECE):  # summed while a core still has it at hand
                piece = rows[at : at + PIECE]
                self._read_into(name, start + at, [piece])
                found = extended(found, piece)
            self._read_into(name, start + len(rows), [closing])
            check_found(found, closing)
            return
        scratch: UInt8[np.ndarray, " n"] | None = getattr(self._scratch, "bytes", None)
        if scratch is None or len(scratch) < length:
            scratch = self._scratch.bytes = np.empty(length + length // 8, np.uint8)
        self._read_into(name, start, [scratch[:length]])
        decode_chunk(scratch[:length], self.layout.compressor, whole)

    def column(self, name: str) -> Shaped[np.ndarray, " r"]:
        """A whole array of one number a row: an index column, norms/<site>, scales/<site>.

        Raises StoreDamagedError.
        """
        return read_column(self.folder, self.layout, name, np.dtype(self._dtypes[name]))

    def column_shard(self, name: str, shard: int) -> Shaped[np.ndarray, " r"]:
        """The part of a column that a shard holds."""
        dtype = np.dtype(self._dtypes[name])
        return _read_column_shard(self.folder, self.layout, name, shard, dtype)

    def size_fault(self, name: str, sizes: Mapping[str, int]) -> StoreDamagedError | None:
        """What is wrong where a shard's file is missing, or not as long as it was written."""
        size = sizes.get(name)
        return None if size == self._files[name]["bytes"] else self._damage(name, size)

    def statistic(self, site: str, name: str) -> Float64[np.ndarray, "..."]:
        """An array of statistics/<site>. Raises StoreDamagedError."""
        at = f"statistics/{site}/{name}"
        dimensions = 1 if name == "norm_quantiles" else len(self.layout.row_shape(site))
        file = f"{at}/c" + "/0" * dimensions
        try:
            shape = _shape(self.folder, at)
            values = np.empty(shape)
            decode_chunk(np.frombuffer(self.folder.read(file), np.uint8), "none", values)
            return values
        except (FileNotFoundError, KeyError, TypeError, *UNREADABLE) as error:
            raise StoreDamagedError(
                f"{self.folder.location}/{at} is missing or altered; remove the folder "
                f"{record_name(0).removesuffix('/' + METADATA)} of the store and run the same "
                "harvest again."
            ) from error

    def _place(self, array: str, name: str, shard: int, place: int, chunk: int) -> tuple[int, int]:
        """Offset and length of a chunk in its shard file."""
        with self._lock:
            index = self._indexes.get(name)
        size = index_bytes(self.layout.chunks_per_shard)
        for attempt in (1, 2) if index is None else ():
            try:
                index = split_index(self._read(name, -size, size))
                break
            except UNREADABLE as error:
                self._forget_index(name)
                if attempt == 2:
                    raise self._wrong(array, chunk, shard) from error
        assert index is not None
        with self._lock:
            self._indexes[name] = index
            if len(self._indexes) > INDEXES_KEPT:
                self._indexes.popitem(last=False)
        offset, length = (int(n) for n in index[place])
        if offset == ABSENT:
            raise self._wrong(array, chunk, shard)
        return offset, length

    def _forget_index(self, name: str) -> None:
        size = index_bytes(self.layout.chunks_per_shard)
        self.folder.forget(name, -size, size)
        with self._lock:
            self._indexes.pop(name, None)

    def _read(self, name: str, start: int, length: int) -> bytes:
        for attempt in (1, 2):
            try:
                content = self.folder.read(name, start, length)
            except FileNotFoundError as error:
                raise self._damage(name, None) from error
            if len(content) == length:
                break
            self.folder.forget(name, start, length)
            if attempt == 2:
                raise self._damage(name, self.folder.size(name))
        return content

    def _read_into(self, name: str, start: int, parts: Sequence[UInt8[np.ndarray, " _"]]) -> None:
        length = sum(part.nbytes for part in parts)
        for attempt in (1, 2):
            try:
                got = self.folder.read_into(name, start, parts)
            except FileNotFoundError as error:
                raise self._damage(name, None) from error
            if got == length:
                return
            self.folder.forget(name, start, length)
            if attempt == 2:
                raise self._damage(name, self.folder.size(name))

    def _damage(self, name: str, size: int | None) -> StoreDamagedError:
        shard = self._files[name]["shard"]
        rows = self.layout.row_range(self.layout.shard_inputs(shard))
        return damage(self.folder, name, self._files[name]["bytes"], size, (rows.start, rows.stop))

    def _wrong(self, array: str, chunk: int, shard: int) -> StoreDamagedError:
        name = self.layout.shard_file(array, shard)
        size = self.folder.size(name)
        if size != self._files[name]["bytes"]:
            return self._damage(name, size)
        rows = self.chunk_range(chunk)
        return _wrong_checksum(self.folder, array, chunk, (rows.start, rows.stop), shard)


def read_column(
    folder: Folder, layout: Layout, name: str, dtype: np.dtype
) -> Shaped[np.ndarray, " r"]:
    """A whole column, several shards at a time. Raises StoreDamagedError."""
    whole = np.empty(layout.rows, dtype)

    def fill(shard: int) -> None:
        rows = layout.row_range(layout.shard_inputs(shard))
        whole[rows] = _read_column_shard(folder, layout, name, shard, dtype)

    with ThreadPoolExecutor(FETCHES if folder.distant else os.cpu_count()) as pool:
        list(pool.map(fill, range(layout.shards)))
    return whole


def _read_column_shard(
    folder: Folder, layout: Layout, name: str, shard: int, dtype: np.dtype
) -> Shaped[np.ndarray, " r"]:
    rows = layout.row_range(layout.shard_inputs(shard))
    part = np.empty(layout.rows_per_shard, dtype)
    try:
        content = np.frombuffer(folder.read(layout.shard_file(name, shard)), np.uint8)
        decode_chunk(content, layout.compressor, part)
    except FileNotFoundError as error:
        record = read_record(folder, shard)
        wanted = record["files"][layout.shard_file(name, shard)]["bytes"]
        at = (rows.start, rows.stop)
        raise damage(folder, layout.shard_file(name, shard), wanted, None, at) from error
    except UNREADABLE as error:
        at = (rows.start, rows.stop)
        raise _wrong_checksum(folder, name, shard, at, shard) from error
    return part[: rows.stop - rows.start]


def _wrong_checksum(
    folder: Folder, array: str, chunk: int, rows: tuple[int, int], shard: int
) -> StoreDamagedError:
    return StoreDamagedError(
        f"the checksum of chunk {chunk} of array {array} (rows {rows[0]} to {rows[1] - 1}) in "
        f"{folder.location} is wrong: a bit has changed on the disk; {repair(folder, shard)}"
    )


def _shape(folder: Folder, array: str) -> tuple[int, ...]:
    shape: list[int] = json.loads(folder.read(f"{array}/{METADATA}"))["shape"]
    return tuple(shape)


def faults(arrays: StoredArrays) -> Iterator[StoreDamagedError]:
    """Every fault of a store: each chunk against its checksum, each file against its digest."""
    yield from metadata_faults(arrays.folder).values()
    sizes = arrays.folder.sizes()
    for shard in range(arrays.layout.shards):
        yield from shard_faults(arrays, shard, sizes)
    yield from statistics_faults(arrays)


def statistics_faults(arrays: StoredArrays) -> Iterator[StoreDamagedError]:
    """The arrays of statistics that are missing or altered."""
    for site in arrays.layout.widths:
        for name in STATISTICS:
            try:
                arrays.statistic(site, name)
            except StoreDamagedError as error:
                yield error


def metadata_faults(folder: Folder) -> dict[str, StoreDamagedError]:
    """The zarr.json files of a complete store that are not what was written."""
    found = {}
    digests: dict[str, str] = read_attributes(folder, f"{RECORDS}/{METADATA}").get(DIGEST, {})
    for name, digest in digests.items():
        try:
            content = folder.read(name)
        except FileNotFoundError:
            content = None
        if content is None or file_digest(content) != digest:
            found[name] = StoreDamagedError(
                f"{folder.location}/{name}, metadata of the store, is "
                f"{'missing' if content is None else 'not what was written: its digest differs'}; "
                f"{_mend(folder, name)}"
            )
    return found


def _mend(folder: Folder, name: str) -> str:
    """What to do about an altered zarr.json: a record's shard is made anew, else all of it."""
    kind, _, rest = name.partition("/")
    shard = rest.partition("/")[0]
    if kind == RECORDS and shard.isdigit():
        return repair(folder, int(shard))
    return "run the same harvest again, with --overwrite."


def shard_faults(
    arrays: StoredArrays, shard: int, sizes: Mapping[str, int]
) -> Iterator[StoreDamagedError]:
    """The faults of a shard: for each array those of its chunks or, where they are as their
    checksums say, that of the whole file."""
    layout, folder = arrays.layout, arrays.folder
    try:
        files = read_record(folder, shard)["files"]
    except (StoreDamagedError, KeyError) as error:
        yield StoreDamagedError(
            f"{folder.location}/{record_name(shard)}, the record of shard {shard}, is missing or "
            f"altered ({error}); {repair(folder, shard)}"
        )
        return
    for array in layout.arrays(arrays.dtype):
        found = list(_array_faults(arrays, array, shard, sizes))
        yield from found
        name = layout.shard_file(array, shard)
        if found:
            continue
        digest = files.get(name, {}).get(DIGEST)
        if file_digest(folder.read(name)) != digest:
            yield StoreDamagedError(
                f"{folder.location}/{name} is not what was written: its digest differs from "
                f"its record's; {repair(folder, shard)}"
            )


def _array_faults(
    arrays: StoredArrays, array: str, shard: int, sizes: Mapping[str, int]
) -> Iterator[StoreDamagedError]:
    layout = arrays.layout
    fault = arrays.size_fault(layout.shard_file(array, shard), sizes)
    if fault is not None:
        yield fault
        return
    kind, _, site = array.partition("/")
    first = shard * layout.chunks_per_shard
    chunks = range(first, min(first + layout.chunks_per_shard, arrays.chunks))
    for chunk in chunks if kind == "activations" else [shard]:
        try:
            if kind == "activations":
                arrays.read_chunk(site, chunk)
            else:
                arrays.column_shard(array, shard)
        except StoreDamagedError as error:
            yield error


def verify(location: str | Path) -> int:
    """Read every chunk of a complete store against its checksum and every file against its
    digest; returns the number of files. Raises StoreDamagedError at the first fault."""
    arrays = StoredArrays(location)
    for fault in faults(arrays):
        raise fault
    return len(arrays.layout.arrays(arrays.dtype)) * arrays.layout.shards
