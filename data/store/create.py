"""Create a store, and hold its lock while its shards are written.

This is the only module that imports zarr. FORMAT.md describes the store for other programs.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from ..cli import note
from ..errors import ConfigError, StoreDamagedError, StoreNotFoundError
from .atomic import check_no_links, check_not_link, locked, sync, write_together
from .codec import LZ4_LEVEL, ZSTD_LEVEL
from .dtypes import ITEM_BYTES, NO_ROW, STORED_AS
from .folder import CREATING, Folder, LocalFolder, open_folder, sweep_beside
from .labels import FILE as LABELS
from .labels import Labels
from .layout import IDENTITY, Layout
from .moments import QUANTILES
from .record import (
    DIGEST,
    LIST,
    METADATA,
    OVERWRITE,
    RECORDS,
    changed_metadata,
    check_identity,
    exists,
    file_digest,
    group_json,
    layout_of,
    read_about,
    read_list,
    sealed_json,
)
from .spec import FORMAT, StoreSpec
from .truth import TRUTH, TRUTH_AXES, Constants
from .writer import FILL, STATISTICS, StoreWriter

CREATION_SECONDS = 600  # how long other ranks wait for rank 0


@contextmanager
def writing(
    location: str | Path,
    spec: StoreSpec,
    layout: Layout,
    *,
    origin: Mapping[str, str],
    environment: Mapping[str, Any],
    overwrite: bool = False,
    rank: int = 0,
    ranks: int = 1,
    declared: bool = False,
    labels: Labels | None = None,
    truth: Constants | None = None,
) -> Iterator[StoreWriter]:
    """Create the store or continue it, holding its lock. Raises StoreLockedError.

    `labels` are the classes of the inputs, and `truth` arrays of the group of that name (see
    truth.py), written where the store is created.

    The `ranks` of one group write together; rank 0 creates the store and locks out other groups.
    At a URL there are no locks: `declared` confirms that only these ranks write there. Raises
    ConfigError without it.
    """
    folder = open_folder(location)
    with ExitStack() as locks:
        if isinstance(folder, LocalFolder):
            path = folder.path
            check_not_link(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            create = partial(_create, folder, spec, layout, origin, labels, truth)
            locks.enter_context(_group_lock(path, create, overwrite, rank, ranks))
        elif not declared:
            raise ConfigError(
                f"{location} is at a URL, where no lock prevents two harvests from writing the "
                "same store. Give --ranks 1 if this is the only process, or --ranks N --rank I to "
                "each of N processes."
            )
        elif rank == 0:
            if overwrite and exists(folder):
                _check_ours(folder)
                folder.remove()
            if not exists(folder):
                _create(folder, spec, layout, origin, labels, truth)
        _await(folder)
        _check_begun(folder, spec, layout)
        yield StoreWriter(folder, environment, rank, ranks)


@contextmanager
def _group_lock(
    path: Path,
    create: Callable[[], None],
    overwrite: bool,
    rank: int,
    ranks: int,
) -> Iterator[None]:
    """Lock the folder, so that one group writes at a time.

    A single process holds the folder's lock exclusively. The ranks of a group share it, and
    rank 0 also holds the lock of `records` exclusively.
    """
    folder = LocalFolder(path)
    with ExitStack() as locks:
        if rank == 0:
            sweep_beside(path)
            if path.exists() and any(path.iterdir()):
                _check_ours(folder)
                if overwrite:
                    with locked(path):
                        folder.take_away()
            with locked(path.parent, wait=True):
                if not path.exists() or not any(path.iterdir()):
                    create()
        _await(folder)
        locks.enter_context(locked(path, shared=ranks > 1))
        if ranks > 1 and rank == 0:
            locks.enter_context(locked(path / RECORDS))
        check_no_links(path)
        if ranks == 1:
            folder.sweep()
        yield


def _check_ours(folder: Folder) -> None:
    """Raise ConfigError for a folder that no harvest made. One whose root is damaged still has the
    group of its records."""
    try:
        ours = b'"tendril"' in folder.read(METADATA)
    except (FileNotFoundError, NotADirectoryError):
        ours = False
    if not ours and folder.size(f"{RECORDS}/{METADATA}") is None:
        raise ConfigError(
            f"{folder.location} must be a store or absent; got something else, which is left "
            "alone. Move it away, or give another --home."
        )


def _await(folder: Folder) -> None:
    """Wait until rank 0 has created the store."""
    until = time.monotonic() + CREATION_SECONDS
    while not exists(folder):
        if time.monotonic() > until:
            raise StoreNotFoundError(
                f"rank 0 has not created the store {folder.location} within {CREATION_SECONDS} "
                "seconds. Check its messages, and start all ranks again."
            )
        time.sleep(0.05)


def _check_begun(folder: Folder, spec: StoreSpec, layout: Layout) -> None:
    """Raise StoreDamagedError unless a store is that of a harvest, and its metadata are unchanged.

    Metadata of an incomplete store of an earlier version, which have no digests, are compared with
    what would be written now.
    """
    about, listed = read_about(folder), read_list(folder)
    check_identity(folder, about)
    if about["digest"] != spec.digest():
        raise StoreDamagedError(
            f"{folder.location} must be the store of this harvest, with the digest "
            f"{spec.digest()[:12]}; got {about['digest'][:12]}. {OVERWRITE}"
        )
    check_layout(folder.location, layout_of(about), layout)
    for fault in changed_metadata(folder, listed, of_shards=False).values():
        raise fault
    if listed.digests:
        return
    note(
        f"{folder.location} was begun by an earlier version, which recorded no digests of "
        "metadata and records: what is already there can be checked only in part. Pass "
        "--overwrite to write everything again."
    )
    wanted = _metadata(spec, layout_of(about), about["origin"])
    for name in sorted(wanted.keys() - {LIST}):
        if folder.size(name) is None or folder.read(name) != wanted[name]:
            raise StoreDamagedError(
                f"{folder.location}/{name}, metadata of the store, is missing or has changed. "
                f"{OVERWRITE}"
            )


def check_layout(location: str, stored: Layout, wanted: Layout) -> None:
    """Raise StoreDamagedError if a store has rows of other shapes than a harvest gives now.

    Earlier versions took other dimensions for the channels of some networks.
    """
    for name in IDENTITY:
        was, now = getattr(stored, name), getattr(wanted, name)
        if was != now:
            raise StoreDamagedError(
                f"{location} must hold rows of the layout that its subject and inputs give "
                f"({name} {now}); got {name} {was}, as an earlier version may have read it. "
                f"{OVERWRITE}"
            )


def _create(
    folder: Folder,
    spec: StoreSpec,
    layout: Layout,
    origin: Mapping[str, str],
    labels: Labels | None,
    truth: Constants | None,
) -> None:
    """Write the metadata of an empty store.

    On this machine a temporary folder is renamed, which is atomic. At a URL the root's metadata,
    which mark a store, are written last.
    """
    files = _metadata(spec, layout, origin, labels, truth)
    root = files.pop(METADATA)
    if not isinstance(folder, LocalFolder):
        folder.write_together(files)
        folder.write(METADATA, root)
        return
    aside = folder.path.with_name(f".{folder.path.name}.{CREATING}")
    LocalFolder(aside).remove()
    write_together({aside / name: content for name, content in {**files, METADATA: root}.items()})
    aside.rename(folder.path)
    sync(folder.path.parent)


def _metadata(
    spec: StoreSpec,
    layout: Layout,
    origin: Mapping[str, str],
    labels: Labels | None = None,
    truth: Constants | None = None,
) -> dict[str, bytes]:
    """Every zarr.json of an empty store, made by zarr in memory."""
    kept: dict[str, Buffer] = {}
    about = {
        "format": FORMAT,
        "complete": False,
        "spec": json.loads(spec.canonical()),
        "digest": spec.digest(),
        "layout": dataclasses.asdict(layout),
        "origin": dict(origin),
    }
    root = zarr.create_group(MemoryStore(store_dict=kept), attributes={"tendril": about})
    for name, dtype in layout.arrays(spec.dtype).items():
        group, _, site = name.rpartition("/")
        if group:
            root.require_group(group)
        if group == "activations":
            _add_activations(root, site, spec, layout)
        else:
            rows, chunk = layout.rows, layout.rows_per_shard
            _add_small(root, name, (rows,), (chunk,), dtype, ("row",), layout.compressor)
    for site in layout.widths:
        statistics = root.require_group(f"statistics/{site}")
        shape = layout.row_shape(site)
        axes = ("element", "channel")[-len(shape) :]
        for name in STATISTICS:
            _add_small(statistics, name, shape, shape, "float64", axes)
        levels = len(QUANTILES)
        _add_small(statistics, "norm_quantiles", (levels,), (levels,), "float64", ("quantile",))
        statistics["norm_quantiles"].attrs["quantiles"] = list(QUANTILES)
    for name, array in (truth or {}).items():
        path = f"{TRUTH}/{name}"
        root.require_group(TRUTH)
        _add_small(root, path, array.shape, array.shape, "float32", TRUTH_AXES)
        root.require_array(path, shape=array.shape, dtype="float32")[...] = array
    root.require_group(RECORDS)
    files = {name: content.to_bytes() for name, content in kept.items()}
    if labels is not None:
        files[LABELS] = group_json(labels.attributes())
    digests = {name: file_digest(files[name]) for name in sorted(files) if name != LIST}
    return files | {LIST: sealed_json({DIGEST: digests})}


def _add_activations(root: zarr.Group, site: str, spec: StoreSpec, layout: Layout) -> None:
    attributes: dict[str, Any] = {"grid": list(layout.grids.get(site, ()))}
    if spec.dtype == "bfloat16":
        attributes["bits_of"] = "bfloat16"
    if spec.dtype == "int8":
        attributes["scales"] = f"scales/{site}"
    shape = layout.row_shape(site)
    root.create_array(
        f"activations/{site}",
        shape=(layout.rows, *shape),
        shards=(layout.rows_per_shard, *shape),
        chunks=(layout.rows_per_chunk, *shape),
        dtype=STORED_AS[spec.dtype],
        fill_value=NO_ROW[spec.dtype],  # so that a missing shard never reads as zeros
        compressors=_codecs(layout.compressor, ITEM_BYTES[spec.dtype]),
        dimension_names=("row", *("element", "channel")[-len(shape) :]),
        attributes=attributes,
    )


def _add_small(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    axes: tuple[str, ...],
    compressor: str = "none",
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=FILL[dtype],
        compressors=_codecs(compressor, np.dtype(dtype).itemsize),
        dimension_names=axes,
    )


def _codecs(compressor: str, item_bytes: int) -> list[BytesBytesCodec]:
    crc = Crc32cCodec()
    if compressor == "zstd":
        return [ZstdCodec(level=ZSTD_LEVEL), crc]
    if compressor == "lz4":
        lz4 = BloscCodec(
            cname="lz4", clevel=LZ4_LEVEL, shuffle="noshuffle", typesize=item_bytes, blocksize=0
        )
        return [lz4, crc]
    assert compressor == "none", compressor
    return [crc]
