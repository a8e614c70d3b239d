"""The metadata of a store, read and written as plain JSON: what it is about, and its records.

A record is the commit of a shard: a zarr group without members whose attributes list the
shard's files (sizes, digests), its inputs, and its moments.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from .errors import (
    StoreDamagedError,
    StoreIncompleteError,
    StoreNotFoundError,
    StoreVersionError,
)
from .home import entries
from .layout import Layout
from .spec import FORMAT
from .stats import Moments

METADATA = "zarr.json"
RECORDS = "records"


def read_about(path: Path) -> dict[str, Any]:
    """The `tendril` attribute of a store's root: spec, layout, origin, complete.

    Raises StoreNotFoundError and StoreVersionError.
    """
    metadata = path / METADATA
    if not metadata.is_file():
        present = [p.name for p in entries(path.parent, METADATA)]
        raise StoreNotFoundError(
            f"there is no store at {path} ({path.parent} holds "
            f"{', '.join(present) or 'none'}); `make harvest` makes one."
        )
    about = read_attributes(metadata).get("tendril")
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else "no Tendril store"
        raise StoreVersionError(
            f"{path} should be a store of format {FORMAT} and is {found}; harvest again with "
            "this version of Tendril, or read it with the one that wrote it."
        )
    return about


def missing_shards(path: Path) -> list[int]:
    """The shards without a record, or with a file that is missing or cut short, in order."""
    shards = range(layout_of(read_about(path)).shards)
    return [s for s in shards if not record_path(path, s).is_file() or damaged_files(path, s)]


def is_complete(path: Path) -> bool:
    """Whether a store is there, its harvest has ended, and no file has gone since."""
    return (
        (path / METADATA).is_file()
        and bool(read_about(path)["complete"])
        and not missing_shards(path)
    )


def damaged_files(
    path: Path, shard: int, record: Mapping[str, Any] | None = None, under: str = ""
) -> dict[str, int | None]:
    """The files of a shard (of the array `under`) whose size is not their record's, with the
    size they have, None for a missing one."""
    files = (record or read_record(path, shard))["files"]
    sizes = {
        name: (path / name).stat().st_size if (path / name).is_file() else None
        for name in files
        if name.startswith(under)
    }
    return {name: size for name, size in sizes.items() if size != files[name]["bytes"]}


def record_path(path: Path, shard: int) -> Path:
    return path / RECORDS / f"{shard:05d}" / METADATA


def read_record(path: Path, shard: int) -> dict[str, Any]:
    record = record_path(path, shard)
    if not record.is_file():
        raise StoreDamagedError(
            f"{record}, the record of shard {shard}, is missing; {repair(path, shard)}"
        )
    return read_attributes(record)


def read_attributes(metadata: Path) -> dict[str, Any]:
    try:
        content = json.loads(metadata.read_bytes())
        return cast(dict[str, Any], content["attributes"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError(
            f"{metadata} should be the JSON of a zarr group with attributes and is not "
            f"({error}); harvest again with --overwrite."
        ) from error


def group_json(attributes: Mapping[str, Any]) -> bytes:
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(group, indent=1, allow_nan=False).encode()


def layout_of(about: Mapping[str, Any]) -> Layout:
    fields = dict(about["layout"])
    fields["columns"] = tuple(fields["columns"])
    fields["grids"] = {site: tuple(grid) for site, grid in fields["grids"].items()}
    return Layout(**fields)


def moments_to_json(moments: Moments) -> dict[str, Any]:
    return {"count": moments.count, "mean": moments.mean.tolist(), "m2": moments.m2.tolist()}


def moments_from_json(fields: Mapping[str, Any]) -> Moments:
    return Moments(fields["count"], np.array(fields["mean"]), np.array(fields["m2"]))


def check_complete(path: Path) -> None:
    """Raises StoreIncompleteError, which says how far the harvest has come."""
    about = read_about(path)
    if about["complete"]:
        return
    shards = layout_of(about).shards
    done = sum(record_path(path, s).is_file() for s in range(shards))
    raise StoreIncompleteError(
        f"the store {path} is not complete ({done} of {shards} shards are there); run "
        "the harvest that began it again, and it goes on from there."
    )


def check_files(
    path: Path, shard: int, record: Mapping[str, Any] | None = None, under: str = ""
) -> None:
    """Raises StoreDamagedError where a file of the shard is missing or cut short."""
    record = record or read_record(path, shard)
    for name, size in damaged_files(path, shard, record, under).items():
        first, last = record["rows"]
        raise StoreDamagedError(
            f"{path / name} (rows {first} to {last - 1}) should have "
            f"{record['files'][name]['bytes']:,} bytes and "
            f"{'is missing' if size is None else f'has {size:,}'}; "
            "run the same harvest again to make that shard anew."
        )


def repair(path: Path, shard: int) -> str:
    """What to do about a shard whose files are whole but wrong."""
    return (
        f"to make shard {shard} anew, remove {path / RECORDS / f'{shard:05d}'} and run the "
        "same harvest again."
    )
