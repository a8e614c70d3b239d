"""The store on disk: create it, write whole shards, finish it, open it, verify it.

The only file that imports zarr. FORMAT.md says what a store looks like to any program.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from .errors import StoreDamagedError
from .files import locked, sync_folder, write_whole
from .layout import Layout
from .record import (
    METADATA,
    RECORDS,
    check_complete,
    check_files,
    group_json,
    layout_of,
    missing_shards,
    moments_from_json,
    moments_to_json,
    read_about,
    read_record,
    record_path,
    repair,
)
from .rows import STORED_AS, decode_rows
from .spec import FORMAT, StoreSpec
from .stats import moments_of, no_moments

UNREADABLE = (ValueError, RuntimeError, OSError, IndexError, KeyError)  # what codecs raise


@dataclass(frozen=True)
class Written:
    """A shard's content, as the writer takes it: whole arrays, in the dtypes of the store."""

    activations: Mapping[str, Shaped[np.ndarray, "r d"]]
    columns: Mapping[str, Shaped[np.ndarray, " r"]]
    names: Sequence[str]
    failures: Mapping[int, str]


# ---- writing


@final
class StoreWriter:
    """The one writer of a store. Made by `writing`, which holds the lock."""

    def __init__(self, path: Path, environment: Mapping[str, Any]) -> None:
        self.path = path
        self.about = read_about(path)
        self.layout = layout_of(self.about)
        self.dtype: str = self.about["spec"]["dtype"]
        self.environment = dict(environment)

    def missing(self) -> list[int]:
        """The shards still to be written, in order."""
        return missing_shards(self.path)

    def write_shard(self, shard: int, written: Written) -> int:
        """Write all files of a shard, then its record; returns the bytes written.

        The record is the commit: without it the shard counts as not there, whatever lies on
        the disk. Raises StoreFullError where the disk is full.
        """
        start = shard * self.layout.rows_per_shard
        arrays = {f"activations/{site}": rows for site, rows in written.activations.items()}
        files = {}
        for name, rows in (arrays | dict(written.columns)).items():
            metadata = (self.path / name / METADATA).read_bytes()
            for key, content in _encode(metadata, start, rows).items():
                write_whole(self.path / name / key, content)
                files[f"{name}/{key}"] = {
                    "bytes": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
        valid = written.columns["valid"]
        record = {
            "shard": shard,
            "rows": [start, start + len(valid)],
            "valid_rows": int(valid.sum()),
            "files": files,
            "moments": {
                site: moments_to_json(moments_of(decode_rows(rows[valid], self.dtype)))
                for site, rows in written.activations.items()
            },
            "inputs": list(written.names),
            "failures": [
                {"input": i, "name": written.names[i - self.layout.shard_inputs(shard).start]}
                | {"reason": reason}
                for i, reason in sorted(written.failures.items())
            ],
            "environment": self.environment,
        }
        write_whole(record_path(self.path, shard), group_json(record))
        return sum(cast(int, f["bytes"]) for f in files.values())

    def finish(self) -> None:
        """Merge the moments in shard order, write them, and mark the store complete."""
        assert not self.missing(), "finish() comes after the last shard"
        records = [read_record(self.path, s) for s in range(self.layout.shards)]
        for site, width in self.layout.widths.items():
            total = no_moments(width)
            for record in records:
                total = total.merge(moments_from_json(record["moments"][site]))
            for name, vector in (("mean", total.mean), ("variance", total.variance)):
                folder = self.path / "statistics" / site / name
                metadata = (folder / METADATA).read_bytes()
                for key, content in _encode(metadata, 0, vector).items():
                    write_whole(folder / key, content)
        about = self.about | {
            "complete": True,
            "valid_rows": sum(r["valid_rows"] for r in records),
            "bytes": sum(f["bytes"] for r in records for f in r["files"].values()),
        }
        write_whole(self.path / METADATA, group_json({"tendril": about}))


@contextmanager
def writing(
    path: Path,
    spec: StoreSpec,
    layout: Layout,
    *,
    origin: Mapping[str, str],
    environment: Mapping[str, Any],
    overwrite: bool = False,
) -> Iterator[StoreWriter]:
    """Create the store, or go on with it, holding its lock. Raises StoreLockedError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if overwrite and path.exists():
        with locked(path):
            shutil.rmtree(path)
    with locked(path.parent, wait=True):
        if not path.exists():
            _create(path, spec, layout, origin)
    with locked(path):
        yield StoreWriter(path, environment)


def _create(path: Path, spec: StoreSpec, layout: Layout, origin: Mapping[str, str]) -> None:
    """All metadata of an empty store, made aside and renamed: it is there whole or not."""
    aside = path.with_name(f".{path.name}.creating")
    shutil.rmtree(aside, ignore_errors=True)
    about = {
        "format": FORMAT,
        "complete": False,
        "spec": json.loads(spec.canonical()),
        "digest": spec.digest(),
        "layout": dataclasses.asdict(layout),
        "origin": dict(origin),
    }
    zarr.create_group(aside, attributes={"tendril": about})
    for group in ("activations", "statistics", RECORDS):
        zarr.create_group(aside / group)
    for site, width in layout.widths.items():
        _create_activations(aside, site, width, spec, layout)
        zarr.create_group(aside / "statistics" / site)
        for name in ("mean", "variance"):
            _create_vector(aside / "statistics" / site / name, width, width, "float64", "channel")
    for name in ("input", *layout.columns, "valid"):
        dtype = "bool" if name == "valid" else "int32"
        _create_vector(aside / name, layout.rows, layout.rows_per_shard, dtype, "row", layout)
    for folder in [aside, *(p for p in aside.rglob("*") if p.is_dir())]:
        sync_folder(folder)
    aside.rename(path)
    sync_folder(path.parent)


def _create_activations(root: Path, site: str, width: int, spec: StoreSpec, layout: Layout) -> None:
    attributes: dict[str, Any] = {"grid": list(layout.grids.get(site, ()))}
    if spec.dtype == "bfloat16":
        attributes["bits_of"] = "bfloat16"
    floating = spec.dtype != "bfloat16"
    zarr.create_array(
        root / "activations" / site,
        shape=(layout.rows, width),
        shards=(layout.rows_per_shard, width),
        chunks=(layout.rows_per_chunk, width),
        dtype=STORED_AS[spec.dtype],
        # a missing shard must never read as zeros: NaN, in bfloat16's bits too
        fill_value=float("nan") if floating else 0x7FC0,
        compressors=_codecs(layout.compressor, 2 if spec.dtype != "float32" else 4),
        dimension_names=("row", "channel"),
        attributes=attributes,
        config={"write_empty_chunks": True},
    )


def _create_vector(
    folder: Path, length: int, chunk: int, dtype: str, axis: str, layout: Layout | None = None
) -> None:
    fill = {"bool": False, "int32": -1, "float64": float("nan")}[dtype]
    zarr.create_array(
        folder,
        shape=(length,),
        chunks=(chunk,),
        dtype=dtype,
        fill_value=fill,
        compressors=_codecs(layout.compressor if layout else "none", 4),
        dimension_names=(axis,),
        config={"write_empty_chunks": True},
    )


def _codecs(compressor: str, item_bytes: int) -> list[BytesBytesCodec]:
    crc = Crc32cCodec()
    if compressor == "zstd":
        return [ZstdCodec(level=1), crc]
    if compressor == "lz4":
        lz4 = BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle", typesize=item_bytes)
        return [lz4, crc]
    assert compressor == "none", compressor
    return [crc]


def _encode(metadata: bytes, start: int, rows: Shaped[np.ndarray, "..."]) -> dict[str, bytes]:
    """The files that hold `rows` from row `start` on: zarr writes them to memory, so that
    we decide how they reach the disk."""
    buffer = default_buffer_prototype().buffer
    files: dict[str, Buffer] = {METADATA: buffer.from_bytes(metadata)}
    array = zarr.open_array(
        MemoryStore(store_dict=files), mode="r+", config={"write_empty_chunks": True}
    )
    array[start : start + len(rows)] = rows
    return {key: value.to_bytes() for key, value in sorted(files.items()) if key != METADATA}


# ---- reading


@final
class StoredArrays:
    """The arrays of a complete store, opened with all their files accounted for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about = read_about(path)
        check_complete(path)
        self.layout = layout_of(self.about)
        self.dtype: str = self.about["spec"]["dtype"]
        self.records = [read_record(path, s) for s in range(self.layout.shards)]
        for shard in range(self.layout.shards):
            check_files(path, shard, self.records[shard])
        self._group = zarr.open_group(path, mode="r")

    def read(self, name: str, start: int, stop: int) -> Shaped[np.ndarray, "..."]:
        """Rows start..stop of an array, as stored.

        Raises StoreDamagedError, naming array, chunk and rows, where a checksum is wrong.
        """
        for shard in range(
            start // self.layout.rows_per_shard, -(-stop // self.layout.rows_per_shard)
        ):
            check_files(self.path, shard, self.records[shard], f"{name}/")
        array = cast(zarr.Array[Any], self._group[name])
        try:
            return cast(np.ndarray, array[start:stop])
        except UNREADABLE as error:
            self._name_damage(array, name, start, stop, error)
            raise

    def vector(self, name: str) -> Shaped[np.ndarray, " n"]:
        """A whole index column or statistic."""
        array = cast(zarr.Array[Any], self._group[name])
        if not name.startswith("statistics/"):
            return self.read(name, 0, self.layout.rows)
        values = cast(np.ndarray, array[:])
        if not np.isfinite(values).all():
            raise StoreDamagedError(
                f"{self.path / name} is missing or altered; remove the folder "
                f"{record_path(self.path, 0).parent} and run the same harvest again."
            )
        return values

    def _name_damage(
        self, array: zarr.Array[Any], name: str, start: int, stop: int, cause: Exception
    ) -> None:
        activations = name.startswith("activations/")
        step = self.layout.rows_per_chunk if activations else self.layout.rows_per_shard
        for chunk in range(start // step, -(-stop // step)):
            first, last = chunk * step, min((chunk + 1) * step, self.layout.rows)
            try:
                array[first:last]
            except UNREADABLE:
                shard = first // self.layout.rows_per_shard
                raise StoreDamagedError(
                    f"the checksum of chunk {chunk} of array {name} (rows {first} to "
                    f"{last - 1}) in {self.path} is wrong: a bit has changed on the disk; "
                    f"{repair(self.path, shard)}"
                ) from cause


def verify(path: Path) -> int:
    """Read every file of a complete store against its digest and every chunk against its
    checksum; returns the number of files. Raises StoreDamagedError at the first fault."""
    arrays = StoredArrays(path)
    layout = arrays.layout
    for name in [*(f"activations/{site}" for site in layout.widths), "input", "valid"]:
        for start in range(0, layout.rows, layout.rows_per_shard):
            arrays.read(name, start, min(start + layout.rows_per_shard, layout.rows))
    checked = 0
    for record in arrays.records:
        for name, file in record["files"].items():
            content = (path / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != file["sha256"]:
                raise StoreDamagedError(
                    f"{path / name} is not what was written: its SHA-256 differs from its "
                    f"record's; {repair(path, record['shard'])}"
                )
            checked += 1
    return checked
