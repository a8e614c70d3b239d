"""Stores of sparse rows, of any dtype, with or without a group, and the ways to harm them."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr

from tendril.data.store.codec import encode_chunk, shard_pieces
from tendril.data.store.record import (
    CHECKSUMS,
    DIGEST,
    LIST,
    file_digest,
    group_json,
    sealed_json,
)
from tendril.harvest.loop import SliceRows, write_store

from . import arithmetic

DEAD, CONSTANT = 2, 3  # channels of every site
OUTLIERS = {37: 1000.0, 100: 40.0}  # and what they are multiplied by


def harvest(home: Path, dtype: str = "float16", elements: int = 0, inputs: int = 30) -> Path:
    """relu(sin - 0.3), with a dead channel, a constant one and two norm outliers."""
    shape = dataclasses.replace(arithmetic.layout(inputs=inputs), elements=elements)
    plain = arithmetic.produce_slowly(shape)

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        for part in plain(slices):
            yield dataclasses.replace(part, activations=altered(part, elements))

    path = home / "store" / arithmetic.spec(dtype).folder(f"sparse-{dtype}-{elements}")
    write_store(path, arithmetic.spec(dtype), shape, produce, origin={}, environment={})
    return path


def altered(part: SliceRows, elements: int) -> Mapping[str, np.ndarray]:
    """The rows of a slice."""
    activations = {}
    for site, rows in part.activations.items():
        rows = np.maximum(rows - 0.3, 0).astype(np.float32)
        rows[:, DEAD], rows[:, CONSTANT] = 0, 0.5
        first = part.inputs.start * 6
        for row, times in OUTLIERS.items():
            if first <= row < first + len(rows):
                rows[row - first] *= times
        if elements:
            turned = [np.roll(rows, g, axis=1) for g in range(elements)]
            rows = np.stack(turned, axis=1).astype(np.float32)
        activations[site] = rows
    return activations


def decoded(path: Path, site: str) -> np.ndarray:
    """All stored rows in float64, by zarr and FORMAT.md alone."""
    group = zarr.open_group(path, mode="r")
    array = group[f"activations/{site}"]
    rows = np.asarray(array[:])
    if array.attrs.get("bits_of") == "bfloat16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    if "scales" in array.attrs:
        scales = np.asarray(group[str(array.attrs["scales"])][:])
        rows = rows.astype(np.float32) * scales.reshape(-1, *[1] * (rows.ndim - 1))
    return rows.astype(np.float64)


class StoppedError(Exception):
    """What ends a harvest before its time."""


def incomplete(home: Path) -> Path:
    """A store whose harvest was stopped after two shards."""
    path = home / "store" / arithmetic.spec("float32").folder("begun")
    shape = arithmetic.layout()

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        yield from arithmetic.produce_slowly(shape)(slices[:4])
        raise StoppedError

    with pytest.raises(StoppedError):
        write_store(path, arithmetic.spec("float32"), shape, produce, origin={}, environment={})
    return path


def plant(path: Path, site: str, row: int, value: float) -> None:
    """Put a value into the first channel of a row, with every checksum and digest as if it had
    been harvested so."""
    group = zarr.open_group(path, mode="r")
    about = group.attrs["tendril"]
    shape = arithmetic.layout(inputs=about["layout"]["inputs"])
    shard = row // shape.rows_per_shard
    rows = np.asarray(group[f"activations/{site}"][:])
    rows[row].flat[0] = value
    padded = np.full((shape.rows_per_shard, *rows.shape[1:]), np.nan, rows.dtype)
    mine = rows[shard * shape.rows_per_shard :][: shape.rows_per_shard]
    padded[: len(mine)] = mine
    size = shape.rows_per_chunk
    chunks = [
        encode_chunk(padded[i : i + size], shape.compressor) for i in range(0, len(mine), size)
    ]
    name = shape.shard_file(f"activations/{site}", shard)
    content = b"".join(shard_pieces([[c] for c in chunks], shape.chunks_per_shard))
    (path / name).write_bytes(content)
    record_at = path / f"records/{shard:05d}/zarr.json"
    record = json.loads(record_at.read_bytes())["attributes"]
    record["files"][name] = {
        "bytes": len(content),
        DIGEST: file_digest(content),
        CHECKSUMS: b"".join(bytes(c[-4:]) for c in chunks).hex(),
    }
    record_at.write_bytes(group_json(record))
    reseal(path)


def reseal(path: Path) -> None:
    """Give a store that was changed by hand all digests as if it had been harvested so."""
    listed = json.loads((path / LIST).read_bytes())["attributes"]
    del listed["digest"]
    for record_at in sorted(path.glob("records/*/zarr.json")):
        record = json.loads(record_at.read_bytes())["attributes"]
        record.pop("digest", None)
        record_at.write_bytes(sealed_json(record))
        for name, file in record["files"].items():
            array = next(a for a in listed["bytes"] if name.startswith(f"{a}/c/"))
            listed["bytes"][array][record["shard"]] = file["bytes"]
            listed[CHECKSUMS][array][record["shard"]] = file.get(CHECKSUMS, "")
    listed[DIGEST] = {name: file_digest((path / name).read_bytes()) for name in listed[DIGEST]}
    (path / LIST).write_bytes(sealed_json(listed))


def flip(file: Path, place: int = -20) -> None:
    """Turn one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(bytes(content))
