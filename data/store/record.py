"""The metadata of a store, read and written as plain JSON.

The root's attribute `tendril` describes the store. Each shard has a record, whose presence commits
the shard: a zarr group without members, whose attributes list the shard's files (sizes, digests),
inputs and moments. The group `records` holds the digests of all metadata. In a complete store it
repeats the sizes of all files, so that opening reads one file. Records and this list end with a
digest of themselves.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import xxhash

from ..errors import StoreDamagedError, StoreIncompleteError, StoreNotFoundError, StoreVersionError
from ..home import entries
from .atomic import Content, pieces_of
from .folder import Folder, LocalFolder
from .layout import Layout, is_count, layout_fault
from .spec import FORMAT, digest_of, spec_fault

METADATA = "zarr.json"
RECORDS = "records"
LIST = f"{RECORDS}/{METADATA}"  # holds the digests of all metadata
DIGEST = "xxh128"  # the key of file digests in records
CHECKSUMS = "crc32c"  # the key of the checksums of chunks
SEAL = "digest"  # the last attribute of a record and of LIST: the digest of the others
BEGUN = "incomplete"  # the digest of the root's metadata before the store was complete
OVERWRITE = "Run the same harvest again with --overwrite."
NAME = re.compile(r"-([0-9a-f]{12})$")  # the end of a store's name
RECORD = re.compile(rf"{RECORDS}/(\d{{5,}})/{re.escape(METADATA)}")
ABOUT_TYPES = {"complete": bool, "spec": dict, "digest": str, "layout": dict, "origin": dict}
RECORD_TYPES = {
    "shard": int,
    "rows": list,
    "valid_rows": int,
    "moments": dict,
    "inputs": list,
    "failures": list,
    "environment": dict,
    "files": dict,
}


@final
@dataclass(frozen=True)
class Listed:
    """The attributes of `records`: what is known of a store's files.

    `sizes` and `checksums` have one entry per shard for each array; they are empty until the store
    is complete. `checksums` are those of the chunks in a file, in order, as hex. `digests` are
    empty for incomplete stores of earlier versions, `begun` and `checksums` for all of these.
    """

    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, Sequence[str]] = field(default_factory=dict)
    begun: str = ""
    sealed: bool = False


def read_about(folder: Folder) -> dict[str, Any]:
    """The attribute `tendril` of a store's root: spec, layout, origin, complete.

    Raises StoreNotFoundError, StoreVersionError, and StoreDamagedError if an entry is malformed.
    """
    try:
        about = parse_attributes(folder, METADATA, folder.read(METADATA)).get("tendril")
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
    _check_about(folder, about)
    return about


def _check_about(folder: Folder, about: Mapping[str, Any]) -> None:
    """Raise StoreDamagedError if an entry of the root is missing or of a wrong kind."""
    _check_types(folder, METADATA, about, ABOUT_TYPES)
    fault = spec_fault(about["spec"]) or layout_fault(about["layout"])
    if not fault and set(about["layout"]["widths"]) != set(about["spec"]["sites"]):
        fault = "the sites of `spec` in `layout.widths`"
    if not all(isinstance(value, str) for value in about["origin"].values()):
        fault = fault or "texts in `origin`"
    if about["complete"] and not (
        is_count(about.get("valid_rows")) and is_count(about.get("bytes"))
    ):
        fault = fault or "whole numbers in `valid_rows` and `bytes`"
    if fault:
        raise _malformed(folder, METADATA, fault)


def _check_types(
    folder: Folder, name: str, given: Mapping[str, Any], types: Mapping[str, type]
) -> None:
    for key, kind in types.items():
        value = given.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _malformed(folder, name, f"`{key}` of type {kind.__name__}", value)


def _malformed(folder: Folder, name: str, wanted: str, got: object = None) -> StoreDamagedError:
    shown = "something else" if got is None else repr(got)[:60]
    return StoreDamagedError(
        f"{folder.location}/{name} must have {wanted}; got {shown}. {OVERWRITE}"
    )


def check_identity(folder: Folder, about: Mapping[str, Any]) -> None:
    """Raise StoreDamagedError unless a store's spec has the digest on record, and its name too.

    Only a name that ends with 12 hex digits is held against the digest.
    """
    digest = digest_of(about["spec"])
    if digest != about["digest"]:
        raise StoreDamagedError(
            f"the spec of {folder.location} does not match its digest: "
            f"{METADATA} has changed. {OVERWRITE}"
        )
    place = folder.path.resolve().name if isinstance(folder, LocalFolder) else folder.location
    named = NAME.search(place.rstrip("/"))
    if named and named[1] != digest[:12]:
        raise StoreDamagedError(
            f"the name of {folder.location} must end with {digest[:12]}, the digest of the spec "
            f"inside; got {named[1]}. It holds another store than its name says: give it its own "
            "name back, or remove it and harvest again."
        )


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


def recorded_shards(sizes: Mapping[str, int]) -> list[int]:
    """The shards with a record, in ascending order, from the sizes of a store's files."""
    found = (RECORD.fullmatch(name) for name in sizes)
    return sorted(int(match[1]) for match in found if match)


def missing_shards(folder: Folder) -> list[int]:
    """The shards without a whole record or with a missing or short file, in ascending order."""
    layout, sizes, whole = layout_of(read_about(folder)), folder.sizes(), set()
    for shard in recorded_shards(sizes):
        try:
            files = read_record(folder, shard)["files"]
        except StoreDamagedError:
            continue
        if not damaged_files(files, sizes):
            whole.add(shard)
    return [shard for shard in range(layout.shards) if shard not in whole]


def is_complete(folder: Folder) -> bool:
    """True if there is a store, its harvest has ended, and no file is missing or short.

    Raises StoreDamagedError if its metadata have changed.
    """
    if not exists(folder):
        return False
    about = read_about(folder)
    if not about["complete"]:
        return False
    sizes, layout, listed = folder.sizes(), layout_of(about), read_list(folder)
    files = files_of(folder, listed, layout, about["spec"]["dtype"])
    if damaged_files(files, sizes) or recorded_shards(sizes) != list(range(layout.shards)):
        return False
    check_identity(folder, about)
    for fault in changed_metadata(folder, listed).values():
        raise fault
    return True


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


def read_record(folder: Folder, shard: int, digest: str = "") -> dict[str, Any]:
    """The record of a shard, whose file must have the digest if one is given.

    Raises StoreDamagedError.
    """
    name = record_name(shard)
    try:
        content = folder.read(name)
    except FileNotFoundError:
        raise StoreDamagedError(
            f"{folder.location}/{name}, the record of shard {shard}, is missing. "
            f"{repair(folder, shard)}"
        ) from None
    try:
        record = _unsealed(folder, name, content)
        _check_types(folder, name, record, RECORD_TYPES)
        right = (
            record["shard"] == shard
            and digest in ("", file_digest(content))
            and all(is_count(file.get("bytes")) for file in record["files"].values())
        )
    except (StoreDamagedError, AttributeError):
        right = False
    if not right:
        raise StoreDamagedError(
            f"{folder.location}/{name}, the record of shard {shard}, has changed. "
            f"{repair(folder, shard)}"
        )
    return record


def sealed_json(attributes: Mapping[str, Any]) -> bytes:
    """`group_json` with the attribute SEAL at the end: the digest of the others as JSON."""
    body = json.dumps(attributes, allow_nan=False).encode()
    return group_json({**attributes, SEAL: file_digest(body)})


def _unsealed(folder: Folder, name: str, content: bytes) -> dict[str, Any]:
    """The attributes of a sealed zarr.json, or of one that an earlier version wrote without."""
    attributes = parse_attributes(folder, name, content)
    others = {key: value for key, value in attributes.items() if key != SEAL}
    try:
        whole = SEAL not in attributes or sealed_json(others) == content
    except (ValueError, RecursionError):  # infinity, which is not written
        whole = False
    if not whole:
        raise StoreDamagedError(
            f"{folder.location}/{name} has changed: it ends with another digest. {OVERWRITE}"
        )
    return attributes


def read_list(folder: Folder) -> Listed:
    """What a store's `records` list of its files. Raises StoreDamagedError."""
    try:
        content = folder.read(LIST)
        found = _unsealed(folder, LIST, content)
    except FileNotFoundError as error:
        raise StoreDamagedError(f"{folder.location}/{LIST} is missing. {OVERWRITE}") from error
    kinds = {"bytes": dict, DIGEST: dict, CHECKSUMS: dict, BEGUN: str, SEAL: str}
    known: Sequence[set[str]] = (set(), {"bytes", DIGEST}, {DIGEST, SEAL}, set(kinds))
    if set(found) not in known:
        raise _malformed(folder, LIST, "the sizes and digests of the store's files, and no others")
    _check_types(folder, LIST, found, {key: kinds[key] for key in found})
    return Listed(
        found.get("bytes", {}),
        found.get(DIGEST, {}),
        found.get(CHECKSUMS, {}),
        found.get(BEGUN, ""),
        SEAL in found,
    )


def files_of(
    folder: Folder, listed: Listed, layout: Layout, dtype: str
) -> dict[str, dict[str, int]]:
    """The files of a complete store -> `bytes` and `shard`. Raises StoreDamagedError."""
    whole = {array: listed.sizes.get(array, ()) for array in layout.arrays(dtype)}
    for array, sizes in whole.items():
        if not isinstance(sizes, list) or len(sizes) != layout.shards:
            raise _malformed(folder, LIST, f"the sizes of {layout.shards} files of {array}")
    return {
        layout.shard_file(array, shard): {"bytes": size, "shard": shard}
        for array, sizes in whole.items()
        for shard, size in enumerate(sizes)
    }


def changed_metadata(
    folder: Folder, listed: Listed, *, of_shards: bool = True
) -> dict[str, StoreDamagedError]:
    """The listed files that differ from what was written, by name: metadata and statistics.

    Without `of_shards` only what does not depend on the shards is checked, as a store needs it to
    be continued; the root may then be that of the incomplete store.
    """
    found = {}
    for name, digest in listed.digests.items():
        kind, _, rest = name.partition("/")
        shard = rest.partition("/")[0]
        statistic = name.partition("/c/") if kind == "statistics" else ("", "", "")
        of_record = kind == RECORDS and shard.isdigit()
        if not of_shards and (of_record or statistic[1]):
            continue
        try:
            given = file_digest(folder.read(name))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            given = ""
        if given == digest or (not of_shards and name == METADATA and given == listed.begun):
            continue
        happened = "has changed: its digest differs" if given else "is missing"
        told = f"{folder.location}/{name}, metadata of the store, {happened}"
        if statistic[1]:
            told = f"{folder.location}/{statistic[0]} is missing or altered"
        shards = int(shard) if of_record else 0
        remedy = repair(folder, shards) if of_record or statistic[1] else OVERWRITE
        found[name] = StoreDamagedError(f"{told}. {remedy}")
    return found


def file_digest(content: Content) -> str:
    """The XXH128 digest of a file, in hex.

    It detects accidental changes and takes a tenth of the time of a cryptographic digest.
    """
    digest = xxhash.xxh3_128()
    for piece in pieces_of(content):
        digest.update(piece)
    return digest.hexdigest()


def parse_attributes(folder: Folder, name: str, content: bytes) -> dict[str, Any]:
    """The attributes in the content of a zarr.json. Raises StoreDamagedError."""
    try:
        attributes = json.loads(content)["attributes"]
        if isinstance(attributes, dict):
            return attributes
        raise TypeError(f"attributes are {type(attributes).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamagedError(
            f"{folder.location}/{name} must be the JSON of a zarr group with attributes; got "
            f"something else ({error}). {OVERWRITE}"
        ) from error


def group_json(attributes: Mapping[str, Any], indent: int | None = None) -> bytes:
    """The zarr.json of a group with these attributes, on one line unless `indent` is given."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(group, indent=indent, allow_nan=False).encode()


def layout_of(about: Mapping[str, Any]) -> Layout:
    """The layout on record in a store's root."""
    fields = dict(about["layout"])
    fields["columns"] = tuple(fields["columns"])
    fields["grids"] = {site: tuple(grid) for site, grid in fields.get("grids", {}).items()}
    return Layout(**fields)


def check_complete(folder: Folder, about: Mapping[str, Any]) -> None:
    """Raise StoreIncompleteError, with the number of shards written, unless complete."""
    if about["complete"]:
        return
    shards, progress = layout_of(about).shards, ""
    if folder.listed:
        sizes = folder.sizes(RECORDS)
        done = len(recorded_shards(sizes))
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
