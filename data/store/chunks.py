"""The arrays of a complete store, read chunk by chunk with their checksums verified.

zarr reads the same values. Here a chunk goes from its file into the caller's array with one check
and one copy, and an error names the rows that are lost.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock, local
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt8, UInt64

from ..errors import StoreDamagedError
from .codec import (
    ABSENT,
    CRC_BYTES,
    EMPTY_CRC,
    ChunkError,
    check_crc,
    check_listed,
    decode_chunk,
    extend_crc,
    index_bytes,
    split_index,
)
from .folder import Folder, open_folder
from .layout import Layout
from .record import (
    METADATA,
    OVERWRITE,
    RECORD,
    changed_metadata,
    check_complete,
    check_identity,
    damage,
    damaged_files,
    file_digest,
    files_of,
    layout_of,
    parse_attributes,
    read_about,
    read_list,
    read_record,
    record_name,
    recorded_shards,
    repair,
)

FETCHES = 16  # concurrent requests to a remote store
PIECE = 2**19  # bytes read and checksummed at a time
RECORDS_AT_ONCE = 2**26  # bytes of records that are checked when a store is opened
INDEXES_KEPT = 4096  # indexes of shard files in memory: a few hundred bytes each
UNREADABLE = (ChunkError, ValueError, RuntimeError)  # raised by codecs for altered bytes


@final
class StoredArrays:
    """The arrays of a complete store.

    Opening raises StoreDamagedError if the metadata have changed, or a file is missing or has the
    wrong size. With `check_files=False`, and on web servers, a file is checked only when it is
    read; at a URL so are metadata other than the root's.
    """

    def __init__(
        self, location: str | Path, cache: str | Path | None = None, *, check_files: bool = True
    ) -> None:
        self.folder = open_folder(location, cache)
        self.about = read_about(self.folder)
        check_complete(self.folder, self.about)
        check_identity(self.folder, self.about)
        self.layout = layout_of(self.about)
        self.dtype: str = self.about["spec"]["dtype"]
        self._listed = read_list(self.folder)
        self._files = files_of(self.folder, self._listed, self.layout, self.dtype)
        self._dtypes = self.layout.arrays(self.dtype)
        self._indexes: OrderedDict[str, UInt64[np.ndarray, "c 2"]] = OrderedDict()
        self._lock = Lock()
        self._scratch = local()  # per thread: a buffer for encoded chunks
        if not check_files:
            return
        if self.folder.listed:
            sizes = self.folder.sizes()
            for shard in sorted(set(range(self.layout.shards)) - set(recorded_shards(sizes))):
                self.record(shard)  # raises, saying what to do
            for name, size in damaged_files(self._files, sizes).items():
                raise self._damage(name, size)
        if self.folder.distant:
            self.metadata(METADATA)
            return
        listed, records = self._listed, [n for n in sizes if RECORD.fullmatch(n)]
        if sum(sizes[name] for name in records) > RECORDS_AT_ONCE:  # checked when they are read
            kept = listed.digests.keys() - records
            listed = replace(listed, digests={name: listed.digests[name] for name in kept})
        for fault in changed_metadata(self.folder, listed).values():
            raise fault

    def record(self, shard: int) -> dict[str, Any]:
        """The record of a shard, checked against its digest. Raises StoreDamagedError."""
        return read_record(self.folder, shard, self._listed.digests.get(record_name(shard), ""))

    def metadata(self, name: str) -> dict[str, Any]:
        """The attributes in a zarr.json, checked against its digest. Raises StoreDamagedError."""
        content = self._checked(name)
        return parse_attributes(self.folder, name, content)

    def _checked(self, name: str) -> bytes:
        """A small file, checked against its digest if there is one. Raises StoreDamagedError."""
        try:
            content = self.folder.read(name)
            right = self._listed.digests.get(name, "") in ("", file_digest(content))
        except FileNotFoundError:
            right = False
        if not right:
            raise StoreDamagedError(
                f"{self.folder.location}/{name} is missing or has changed. {OVERWRITE}"
            )
        return content

    def _wanted(self, array: str, shard: int) -> str:
        """The checksums on record of the chunks in a file, 8 hex digits each; empty if unknown."""
        listed = self._listed.checksums.get(array, ())
        return listed[shard] if shard < len(listed) else ""

    @property
    def chunks(self) -> int:
        """The number of chunks of a site."""
        return -(-self.layout.rows // self.layout.rows_per_chunk)

    def chunk_range(self, chunk: int) -> range:
        """The rows of a chunk."""
        size = self.layout.rows_per_chunk
        return range(chunk * size, min((chunk + 1) * size, self.layout.rows))

    def read_chunk(
        self, site: str, chunk: int, out: Shaped[np.ndarray, "..."] | None = None
    ) -> Shaped[np.ndarray, " r *d"]:
        """The rows of a chunk in their stored dtype.

        They are read into `out` if that has the shape of a full chunk. Raises StoreDamagedError,
        naming array, chunk and rows.
        """
        array, layout = f"activations/{site}", self.layout
        shape = (layout.rows_per_chunk, *layout.row_shape(site))
        rows = len(self.chunk_range(chunk))
        whole = out
        if whole is None or whole.shape != shape or not whole.flags.c_contiguous:
            whole = np.empty(shape, self._dtypes[array])
        shard, place = divmod(chunk, layout.chunks_per_shard)
        name = layout.shard_file(array, shard)
        wanted = self._wanted(array, shard)[8 * place : 8 * place + 8]
        offset = length = 0
        for attempt in (1, 2, 3):  # a cache may hold wrong bytes of the index, then of the chunk
            try:
                offset, length = self._place(array, name, shard, place, chunk)
                stored_crc = self._fill(name, offset, length, whole)
                check_listed(stored_crc, wanted)
                return whole[:rows]
            except UNREADABLE as error:
                self.folder.forget(name, offset, length)
                self._forget_index(name)
                if attempt == 3:
                    raise self._wrong(array, chunk, shard) from error
        raise AssertionError("the last attempt returns or raises")

    def _fill(
        self, name: str, start: int, length: int, whole: Shaped[np.ndarray, "..."]
    ) -> UInt8[np.ndarray, " c"]:
        """Read and decode a chunk, and return its checksum.

        An uncompressed chunk is read straight into `whole`.
        """
        if self.layout.compressor == "none" and length == whole.nbytes + CRC_BYTES:
            rows, stored_crc = whole.reshape(-1).view(np.uint8), np.empty(CRC_BYTES, np.uint8)
            if self.folder.distant:  # one request
                self._read_into(name, start, [rows, stored_crc])
                check_crc(extend_crc(EMPTY_CRC, rows), stored_crc)
                return stored_crc
            crc = EMPTY_CRC
            for at in range(0, len(rows), PIECE):  # checksummed while still in the core's cache
                piece = rows[at : at + PIECE]
                self._read_into(name, start + at, [piece])
                crc = extend_crc(crc, piece)
            self._read_into(name, start + len(rows), [stored_crc])
            check_crc(crc, stored_crc)
            return stored_crc
        scratch: UInt8[np.ndarray, " n"] | None = getattr(self._scratch, "bytes", None)
        if scratch is None or len(scratch) < length:
            scratch = self._scratch.bytes = np.empty(length + length // 8, np.uint8)
        self._read_into(name, start, [scratch[:length]])
        decode_chunk(scratch[:length], self.layout.compressor, whole)
        return scratch[length - CRC_BYTES : length]

    def column(self, name: str) -> Shaped[np.ndarray, " r"]:
        """A whole array with one number per row: an index column, norms/<site> or scales/<site>.

        Raises StoreDamagedError.
        """
        listed = [self._wanted(name, shard) for shard in range(self.layout.shards)]
        return read_column(self.folder, self.layout, name, np.dtype(self._dtypes[name]), listed)

    def column_shard(self, name: str, shard: int) -> Shaped[np.ndarray, " r"]:
        """The part of a column that lies in one shard."""
        dtype = np.dtype(self._dtypes[name])
        wanted = self._wanted(name, shard)
        return _read_column_shard(self.folder, self.layout, name, shard, dtype, wanted)

    def size_fault(self, name: str, sizes: Mapping[str, int]) -> StoreDamagedError | None:
        """An error if a shard's file is missing or has the wrong size; None otherwise."""
        size = sizes.get(name)
        return None if size == self._files[name]["bytes"] else self._damage(name, size)

    def statistic(self, site: str, name: str) -> Float64[np.ndarray, "..."]:
        """An array of statistics/<site>. Raises StoreDamagedError."""
        at = f"statistics/{site}/{name}"
        dimensions = 1 if name == "norm_quantiles" else len(self.layout.row_shape(site))
        file = f"{at}/c" + "/0" * dimensions
        try:
            content = np.frombuffer(self._checked(file), np.uint8)
            shape = self.layout.row_shape(site) if name != "norm_quantiles" else (-1,)
            count = max(len(content) - CRC_BYTES, 0) // 8 if shape == (-1,) else np.prod(shape)
            values = np.empty(int(count))
            decode_chunk(content, "none", values)
            return values.reshape(shape)
        except (StoreDamagedError, *UNREADABLE) as error:
            raise StoreDamagedError(
                f"{self.folder.location}/{at} is missing or altered. {repair(self.folder, 0)}"
            ) from error

    def constant(self, name: str) -> Float32[np.ndarray, "..."]:
        """An array of float32 that does not depend on the rows. Raises StoreDamagedError."""
        try:
            shape = tuple(json.loads(self._checked(f"{name}/{METADATA}"))["shape"])
            content = np.frombuffer(self._checked(f"{name}/c" + "/0" * len(shape)), np.uint8)
            values = np.empty(int(np.prod(shape)), np.float32)
            decode_chunk(content, "none", values)
            return values.reshape(shape)
        except (StoreDamagedError, *UNREADABLE) as error:
            raise StoreDamagedError(
                f"{self.folder.location}/{name} is missing or altered. Run the same harvest again "
                "with --overwrite."
            ) from error

    def _place(self, array: str, name: str, shard: int, place: int, chunk: int) -> tuple[int, int]:
        """The offset and length of a chunk in its shard file."""
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
        if offset == ABSENT or offset + length > self._files[name]["bytes"]:
            raise ChunkError("the index has no such chunk")
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
    folder: Folder, layout: Layout, name: str, dtype: np.dtype, checksums: Sequence[str] = ()
) -> Shaped[np.ndarray, " r"]:
    """A whole column, several shards at a time. Raises StoreDamagedError.

    `checksums` are those on record, one per shard.
    """
    whole = np.empty(layout.rows, dtype)

    def fill(shard: int) -> None:
        rows = layout.row_range(layout.shard_inputs(shard))
        wanted = checksums[shard] if checksums else ""
        whole[rows] = _read_column_shard(folder, layout, name, shard, dtype, wanted)

    with ThreadPoolExecutor(FETCHES if folder.distant else os.cpu_count()) as pool:
        list(pool.map(fill, range(layout.shards)))
    return whole


def _read_column_shard(
    folder: Folder, layout: Layout, name: str, shard: int, dtype: np.dtype, wanted: str = ""
) -> Shaped[np.ndarray, " r"]:
    rows = layout.row_range(layout.shard_inputs(shard))
    part = np.empty(layout.rows_per_shard, dtype)
    try:
        content = np.frombuffer(folder.read(layout.shard_file(name, shard)), np.uint8)
        decode_chunk(content, layout.compressor, part)
        check_listed(content[-CRC_BYTES:], wanted)
    except FileNotFoundError as error:
        record = read_record(folder, shard)
        size = record["files"].get(layout.shard_file(name, shard), {}).get("bytes", 0)
        at = (rows.start, rows.stop)
        raise damage(folder, layout.shard_file(name, shard), size, None, at) from error
    except UNREADABLE as error:
        at = (rows.start, rows.stop)
        raise _wrong_checksum(folder, name, shard, at, shard) from error
    return part[: rows.stop - rows.start]


def _wrong_checksum(
    folder: Folder, array: str, chunk: int, rows: tuple[int, int], shard: int
) -> StoreDamagedError:
    return StoreDamagedError(
        f"the checksum of chunk {chunk} of array {array} (rows {rows[0]} to {rows[1] - 1}) in "
        f"{folder.location} is wrong: the file has changed. {repair(folder, shard)}"
    )
