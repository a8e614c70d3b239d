"""The faults of a complete store: files and chunks that are not what was written."""

from collections.abc import Iterator, Mapping

from ..errors import StoreDamagedError
from .chunks import StoredArrays
from .folder import Folder
from .record import (
    DIGEST,
    METADATA,
    RECORDS,
    file_digest,
    read_attributes,
    read_record,
    record_name,
    repair,
)

STATISTICS = ("mean", "variance", "zeros", "norm_quantiles")


def metadata_faults(folder: Folder) -> dict[str, StoreDamagedError]:
    """The zarr.json files that differ from what was written, by name."""
    found = {}
    digests: dict[str, str] = read_attributes(folder, f"{RECORDS}/{METADATA}").get(DIGEST, {})
    for name, digest in digests.items():
        try:
            content = folder.read(name)
        except FileNotFoundError:
            content = None
        if content is None or file_digest(content) != digest:
            found[name] = StoreDamagedError(
                f"{folder.location}/{name}, metadata of the store, "
                f"{'is missing' if content is None else 'has changed: its digest differs'}. "
                f"{_metadata_repair(folder, name)}"
            )
    return found


def _metadata_repair(folder: Folder, name: str) -> str:
    """What to do about an altered zarr.json. For a record only its shard is written again."""
    kind, _, rest = name.partition("/")
    shard = rest.partition("/")[0]
    if kind == RECORDS and shard.isdigit():
        return repair(folder, int(shard))
    return "Run the same harvest again with --overwrite."


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
        files = read_record(folder, shard)["files"]
    except (StoreDamagedError, KeyError) as error:
        yield StoreDamagedError(
            f"{folder.location}/{record_name(shard)}, the record of shard {shard}, is missing or "
            f"altered ({error}). {repair(folder, shard)}"
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
