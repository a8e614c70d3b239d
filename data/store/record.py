"""The metadata of a store, read and written as plain JSON.

The root's attribute `tendril` describes the store. Each shard has a record, whose presence commits
the shard: a zarr group without members, whose attributes list the shard's files (sizes, digests),
inputs and moments. In a complete store the group `records` repeats the sizes of all files, so that
opening reads one file, and holds the digests of all metadata.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import xxhash
from jaxtyping import Shaped

from ..errors import StoreDamagedError, StoreIncompleteError, StoreNotFoundError, StoreVersionError
from ..home import entries
from .atomic import Content, pieces_of
from .folder import Folder, LocalFolder
from .layout import Layout
from .moments import Moments
from .spec import FORMAT

METADATA = "zarr.json"
RECORDS = "records"
DIGEST = "xxh128"  # the key of file digests in records


def read_about(folder: Folder) -> dict[str, Any]:
    """The attribute `tendril` of a store's root: spec, layout, origin, complete.

    Raises StoreNotFoundError and StoreVersionError.
    """
    try:
        about = read_attributes(folder, METADATA).get("tendril")
    except FileNotFoundError:
        raise StoreNotFoundError(
            f"there is no store at {folder.location}{_neighbours(folder)}. "
            "`tendril harvest --help` says how to make one."
        ) from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        got = f"format {about.get('format')}" if isinstance(about, dict) else "no Tendril store"
        raise StoreVersionError(
            f"{folder.location} must be a store of format {FORMAT}; got {got}. Harvest again with "
            "this version of Tendril, or read the store with the version that wrote it."
        )
    return about


def _neighbours(folder: Folder) -> str:
    if not isinstance(folder, LocalFolder):
        return ""
    present = [p.name for p in entries(folder.path.parent, METADATA)]
    return f" ({folder.path.parent} holds {', '.join(present) or 'none'})"


def exists(folder: Folder) -> bool:
    """True if there is a store, complete or not."""
    try:
        folder.read(METADATA)  # the whole file: only parts of files are cached
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def missing_shards(folder: Folder) -> list[int]:
    """The shards without a record or with a missing or short file, in ascending order."""
    shards = layout_of(read_about(folder)).shards
    sizes = folder.sizes()
    recorded = [s for s in range(shards) if record_name(s) in sizes]
    whole = {s for s in recorded if not damaged_files(read_record(folder, s)["files"], sizes)}
    return [s for s in range(shards) if s not in whole]


def is_complete(folder: Folder) -> bool:
    """True if there is a store, its harvest has ended, and no file is missing or short."""
    if not exists(folder):
        return False
    about = read_about(folder)
    if not about["complete"]:
        return False
    sizes, layout = folder.sizes(), layout_of(about)
    return not damaged_files(read_files(folder, layout, about["spec"]["dtype"]), sizes) and all(
        record_name(s) in sizes for s in range(layout.shards)
    )


def damaged_files(
    files: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int]
) -> dict[str, int | None]:
    """The files whose size differs from the recorded one -> their size, None if missing."""
    return {
        name: sizes.get(name) for name, file in files.items() if sizes.get(name) != file["bytes"]
    }


def record_name(shard: int) -> str:
    """The file that holds the record of a shard."""
    return f"{RECORDS}/{shard:05d}/{METADATA}"


def read_record(folder: Folder, shard: int) -> dict[str, Any]:
    """The record of a shard. Raises StoreDamagedError."""
    try:
        return read_attributes(folder, record_name(shard))
    except FileNotFoundError:
        raise StoreDamagedError(
            f"{folder.location}/{record_name(shard)}, the record of shard {shard}, is missing. "
            f"{repair(folder, shard)}"
        ) from None


def read_files(folder: Folder, layout: Layout, dtype: str) -> dict[str, dict[str, int]]:
    """The files of a complete store -> `bytes` and `shard`. Raises StoreDamagedError."""
    try:
        whole: dict[str, list[int]] = read_attributes(folder, f"{RECORDS}/{METADATA}")["bytes"]
        listed = {array: whole[array] for array in layout.arrays(dtype)}
        if any(len(sizes) != layout.shards for sizes in listed.values()):
            raise KeyError("a shard")
    except (FileNotFoundError, KeyError) as error:
        raise StoreDamagedError(
            f"{folder.location}/{RECORDS}/{METADATA} must list the sizes of the store's files and "
            "does not. Run the same harvest again with --overwrite."
        ) from error
    return {
        layout.shard_file(array, shard): {"bytes": size, "shard": shard}
        for array, sizes in listed.items()
        for shard, size in enumerate(sizes)
    }


def file_digest(content: Content) -> str:
    """The XXH128 digest of a file, in hex.

    It detects accidental changes and takes a tenth of the time of a cryptographic digest.
    """
    digest = xxhash.xxh3_128()
    for piece in pieces_of(content):
        digest.update(piece)
    return digest.hexdigest()


def metadata_digests(folder: Folder, root: bytes) -> dict[str, str]:
    """The digest of every zarr.json except `records/zarr.json`, which will list them.

    `root` is the final content of the root's. These files have no checksum of their own.
    """
    names = [n for n in folder.sizes() if n.rpartition("/")[2] == METADATA]
    others = {n: folder.read(n) for n in sorted(names) if n != f"{RECORDS}/{METADATA}"}
    contents = others | {METADATA: root}
    return {n: file_digest(content) for n, content in contents.items()}


def read_attributes(folder: Folder, name: str) -> dict[str, Any]:
    """The attributes in a zarr.json. Raises StoreDamagedError, FileNotFoundError."""
    content = folder.read(name)
    try:
        return cast(dict[str, Any], json.loads(content)["attributes"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError(
            f"{folder.location}/{name} must be the JSON of a zarr group with attributes; got "
            f"something else ({error}). Run the same harvest again with --overwrite."
        ) from error


def group_json(attributes: Mapping[str, Any], indent: int | None = None) -> bytes:
    """The zarr.json of a group with these attributes, on one line unless `indent` is given."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(group, indent=indent, allow_nan=False).encode()


def layout_of(about: Mapping[str, Any]) -> Layout:
    """The layout on record in a store's root."""
    fields = dict(about["layout"])
    fields["columns"] = tuple(fields["columns"])
    fields["grids"] = {site: tuple(grid) for site, grid in fields["grids"].items()}
    return Layout(**fields)


def moments_to_json(moments: Moments) -> dict[str, Any]:
    """Moments as JSON without loss: the bytes of each vector (little-endian) in base64.

    Writing decimals would take longer than writing the rows.
    """
    return {
        "count": moments.count,
        "mean": _packed(moments.mean, "<f8"),
        "m2": _packed(moments.m2, "<f8"),
        "zeros": _packed(moments.zeros, "<i8"),
    }


def moments_from_json(fields: Mapping[str, Any]) -> Moments:
    """The inverse of `moments_to_json`."""
    return Moments(
        fields["count"],
        _unpacked(fields["mean"], "<f8"),
        _unpacked(fields["m2"], "<f8"),
        _unpacked(fields["zeros"], "<i8"),
    )


def _packed(vector: Shaped[np.ndarray, " d"], dtype: str) -> str:
    return base64.b64encode(vector.astype(dtype).tobytes()).decode()


def _unpacked(text: str, dtype: str) -> Shaped[np.ndarray, " d"]:
    return np.frombuffer(base64.b64decode(text), dtype)


def check_complete(folder: Folder, about: Mapping[str, Any]) -> None:
    """Raise StoreIncompleteError, with the number of shards written, unless complete."""
    if about["complete"]:
        return
    shards, progress = layout_of(about).shards, ""
    if folder.listed:
        sizes = folder.sizes(RECORDS)
        done = sum(record_name(s) in sizes for s in range(shards))
        progress = f" ({done} of {shards} shards are written)"
    raise StoreIncompleteError(
        f"the store {folder.location} is not complete{progress}. Run the same harvest again: it "
        "continues where it stopped."
    )


def damage(
    folder: Folder, name: str, wanted: int, size: int | None, rows: tuple[int, int]
) -> StoreDamagedError:
    """The error for a file that is missing or has the wrong size."""
    return StoreDamagedError(
        f"{folder.location}/{name} (rows {rows[0]} to {rows[1] - 1}) must have {wanted:,} bytes; "
        f"it {'is missing' if size is None else f'has {size:,}'}. "
        "Run the same harvest again, which writes that shard anew."
    )


def repair(folder: Folder, shard: int) -> str:
    """What to do about a shard whose files have the right size and a wrong content."""
    return (
        f"Remove {folder.location}/{RECORDS}/{shard:05d} and run the same harvest again, which "
        f"writes shard {shard} anew."
    )
