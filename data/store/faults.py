"""The faults of a complete store: files and chunks that are not what was written."""

from collections.abc import Iterator, Mapping

from ..errors import StoreDamagedError
from .chunks import StoredArrays
from .folder import Folder
from .record import DIGEST, changed_metadata, file_digest, read_list, repair

STATISTICS = ("mean", "variance", "zeros", "norm_quantiles")


def metadata_faults(folder: Folder) -> dict[str, StoreDamagedError]:
    """The files of metadata and statistics that differ from what was written, by name."""
    return changed_metadata(folder, read_list(folder))


def statistics_faults(arrays: StoredArrays) -> Iterator[StoreDamagedError]:
    """The arrays of statistics that are missing or altered."""
    for site in arrays.layout.widths:
        for name in STATISTICS:
            try:
                arrays.statistic(site, name)
            except StoreDamagedError as error:
                yield error


def shard_faults(
    arrays: StoredArrays, shard: int, sizes: Mapping[str, int]
) -> Iterator[StoreDamagedError]:
    """The faults of one shard. `sizes` are those of the store's files.

    For each array: the chunks whose checksum is wrong or, if there are none, a file whose digest
    differs.
    """
    layout, folder = arrays.layout, arrays.folder
    try:
        files = arrays.record(shard)["files"]
    except StoreDamagedError as error:
        yield error
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
                f"{folder.location}/{name} has changed: its digest differs from the one on "
                f"record. {repair(folder, shard)}"
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
