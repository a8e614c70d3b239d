"""Write shards: from arrays in memory to files, records and statistics."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Shaped

from ..cli import note
from ..errors import OverflowingRowsError, StoreDamagedError
from .atomic import Content, locked, pieces_of
from .chunks import read_column
from .codec import (
    CRC_BYTES,
    ChunkError,
    Pieces,
    chunk_pieces,
    encode_chunk,
    index_bytes,
    shard_pieces,
    split_index,
)
from .dtypes import NO_ROW
from .folder import Folder, LocalFolder
from .moments import (
    COMPILE_FROM,
    QUANTILES,
    Moments,
    describe_rows,
    moments_from_json,
    moments_to_json,
    no_moments,
)
from .record import (
    BEGUN,
    CHECKSUMS,
    DIGEST,
    LIST,
    METADATA,
    RECORDS,
    SEAL,
    damaged_files,
    file_digest,
    group_json,
    layout_of,
    missing_shards,
    read_about,
    read_list,
    read_record,
    record_name,
    recorded_shards,
    sealed_json,
)
from .rounding import Rounding, rounding_to_json

FILL = {"bool": False, "int32": -1, "float32": np.nan, "float64": np.nan}
STATISTICS = ("mean", "variance", "zeros")


@dataclass(frozen=True)
class Written:
    """The content of a shard for the writer: whole arrays in the dtypes of the store."""

    activations: Mapping[str, Shaped[np.ndarray, " r *d"]]
    columns: Mapping[str, Shaped[np.ndarray, " r"]]
    names: Sequence[str]
    failures: Mapping[int, str]
    scales: Mapping[str, Float32[np.ndarray, " r"]] = field(default_factory=dict)
    rounding: Mapping[str, Rounding] = field(default_factory=dict)
    saturated: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """The files of a shard, the checksums of their chunks as hex, and the record without these."""

    shard: int
    files: Mapping[str, Content]
    checksums: Mapping[str, str]
    record: Mapping[str, Any]


@final
class StoreWriter:
    """Writes the shards whose number is `rank` modulo `ranks`. `writing` makes one."""

    def __init__(
        self, folder: Folder, environment: Mapping[str, Any], rank: int = 0, ranks: int = 1
    ) -> None:
        self.folder, self._rank, self._ranks = folder, rank, ranks
        self.about = read_about(folder)
        self.layout = layout_of(self.about)
        self.dtype: str = self.about["spec"]["dtype"]
        self._listed = read_list(self.folder)
        self.environment = dict(environment)

    def missing(self) -> list[int]:
        """The shards that this writer still has to write, in ascending order.

        Shards whose record, index columns or index of chunks have changed are among them.
        """
        sizes = self.folder.sizes()
        recorded = recorded_shards(sizes)
        whole = {shard for shard in recorded if self._is_whole(shard, sizes)}
        shards = range(self._rank, self.layout.shards, self._ranks)
        damaged = [shard for shard in recorded if shard in shards and shard not in whole]
        if damaged:
            note(
                f"{len(damaged)} of {len(recorded)} finished shards of {self.folder.location} are "
                f"damaged (the first is {damaged[0]}) and are written again."
            )
        return [shard for shard in shards if shard not in whole]

    def _is_whole(self, shard: int, sizes: Mapping[str, int]) -> bool:
        """True if a finished shard is what was written. The chunks of its rows, which have
        checksums of their own, are not read, and at a URL nothing but the record."""
        layout, folder = self.layout, self.folder
        try:
            record = read_record(folder, shard)
        except StoreDamagedError:
            return False
        files = record["files"]
        arrays = {array: layout.shard_file(array, shard) for array in layout.arrays(self.dtype)}
        if damaged_files(files, sizes) or set(files) != set(arrays.values()):
            return False
        if self._listed.sealed and SEAL not in record:
            return False
        for array, name in () if folder.distant else arrays.items():
            if not array.startswith("activations/"):
                if file_digest(folder.read(name)) != files[name].get(DIGEST):
                    return False
                continue
            size = index_bytes(layout.chunks_per_shard)
            try:
                split_index(folder.read(name, -size, size))
            except ChunkError:
                return False
        return True

    def write_shard(self, shard: int, written: Written) -> int:
        """Encode a shard and commit it; returns the number of bytes written."""
        return self.commit(self.encode(shard, written))

    def encode(self, shard: int, written: Written, pool: Executor | None = None) -> Encoded:
        """The files and the record of a shard. The threads of `pool` encode the chunks.

        A pure function: the result does not depend on the order in which threads finish.
        """
        layout, start = self.layout, shard * self.layout.rows_per_shard
        valid = written.columns["valid"]
        run = pool.map if pool else map
        parts = [
            (site, slice(first, first + layout.rows_per_chunk))
            for site in layout.widths
            for first in range(0, len(valid), layout.rows_per_chunk)
        ]
        chunks = list(run(lambda part: self._encode_chunk(written, *part), parts))
        files: dict[str, Content] = {}
        checksums: dict[str, str] = {}
        moments, columns = {}, dict(written.columns)
        for site, width in layout.widths.items():
            mine = [chunk for (s, _), chunk in zip(parts, chunks, strict=True) if s == site]
            name = layout.shard_file(f"activations/{site}", shard)
            files[name] = shard_pieces([packed for packed, _, _ in mine], layout.chunks_per_shard)
            checksums[name] = "".join(bytes(packed[-1]).hex() for packed, _, _ in mine)
            total = no_moments(width * max(layout.elements, 1))
            for _, described, _ in mine:
                total = total.merge(described)
            moments[site] = moments_to_json(total)
            columns[f"norms/{site}"] = np.concatenate([norms for _, _, norms in mine])
            if site in written.scales:
                columns[f"scales/{site}"] = written.scales[site]
        for name, column in columns.items():
            whole = _padded(column, layout.rows_per_shard, FILL[column.dtype.name])
            content = encode_chunk(whole, layout.compressor)
            files[layout.shard_file(name, shard)] = content
            checksums[layout.shard_file(name, shard)] = content[-CRC_BYTES:].hex()
        record = {
            "shard": shard,
            "rows": [start, start + len(valid)],
            "valid_rows": int(valid.sum()),
            "moments": moments,
            "inputs": list(written.names),
            "failures": [
                {"input": i, "name": written.names[i - layout.shard_inputs(shard).start]}
                | {"reason": reason}
                for i, reason in sorted(written.failures.items())
            ],
            "environment": self.environment,
        }
        if written.rounding:
            record["rounding"] = {s: rounding_to_json(r) for s, r in written.rounding.items()}
        if written.saturated:
            record["saturated"] = [
                {"input": i, "name": written.names[i - layout.shard_inputs(shard).start]}
                | {"pixels": pixels}
                for i, pixels in sorted(written.saturated.items())
            ]
        return Encoded(shard, files, checksums, record)

    def _encode_chunk(
        self, written: Written, site: str, at: slice
    ) -> tuple[Pieces, Moments, Float32[np.ndarray, " r"]]:
        """An encoded chunk, the moments of its valid rows, and the norms of all its rows."""
        rows, valid = written.activations[site][at], written.columns["valid"][at]
        scale = written.scales[site][at] if site in written.scales else None
        flat = rows.reshape(len(rows), -1)
        norms = np.full(len(rows), np.nan, np.float32)
        kept = slice(None) if valid.all() else valid  # a slice takes no copy
        described, norms[kept] = describe_rows(
            flat[kept],
            self.dtype,
            None if scale is None else scale[kept],
            compiled=self.layout.values >= COMPILE_FROM,
        )
        if not np.isfinite(norms[kept]).all():
            raise OverflowingRowsError(
                f"rows must be finite; got a row of {site} that is not as {self.dtype}. Check the "
                "subject's weights and preprocessing, or harvest with --dtype float32."
            )
        whole = _padded(rows, self.layout.rows_per_chunk, NO_ROW[self.dtype])
        return chunk_pieces(whole, self.layout.compressor), described, norms

    def commit(self, encoded: Encoded) -> int:
        """Write the files of a shard, then its record; returns the number of bytes written.

        The record commits the shard: a shard without one counts as missing, whatever files exist.
        Raises StoreFullError if the disk is full.
        """
        files = {
            name: _digest(content) | {CHECKSUMS: encoded.checksums[name]}
            for name, content in encoded.files.items()
        }
        self.folder.write_together(encoded.files)
        record = {**encoded.record, "files": files}
        self.folder.write(record_name(encoded.shard), sealed_json(record))
        return sum(file["bytes"] for file in files.values())

    def finish(self) -> bool:
        """Complete the store if all shards are written; returns whether it is complete.

        Merges the moments in shard order, writes the statistics and marks the store complete.
        Every rank calls this; the last one finds all shards.
        """
        if missing_shards(self.folder):
            return False
        with ExitStack() as alone:
            if isinstance(self.folder, LocalFolder):
                alone.enter_context(locked(self.folder.path / "statistics", wait=True))
                self.folder.sweep()
            if self.about["complete"] or not read_about(self.folder)["complete"]:
                self._complete()  # unless another rank has just done so
        return True

    def _complete(self) -> None:
        layout, valid_rows = self.layout, 0
        totals = {s: no_moments(w * max(layout.elements, 1)) for s, w in layout.widths.items()}
        arrays = layout.arrays(self.dtype)
        sizes: dict[str, list[int]] = {array: [] for array in arrays}
        checksums: dict[str, list[str]] = {array: [] for array in arrays}
        digests = self._fixed_digests()
        for shard in range(layout.shards):  # one record in memory at a time
            record = read_record(self.folder, shard)
            digests[record_name(shard)] = file_digest(self.folder.read(record_name(shard)))
            valid_rows += record["valid_rows"]
            for site, moments in record["moments"].items():
                totals[site] = totals[site].merge(moments_from_json(moments))
            for array in arrays:
                file = record["files"][layout.shard_file(array, shard)]
                sizes[array].append(file["bytes"])
                checksums[array].append(file.get(CHECKSUMS, ""))
        files: dict[str, Content] = {}
        for site, total in totals.items():
            zeros = total.zeros / max(total.count, 1)
            norms = self._norms(site)
            quantiles = np.quantile(norms, QUANTILES) if len(norms) else np.zeros(len(QUANTILES))
            vectors = (total.mean, total.variance, zeros, quantiles)
            for name, vector in zip((*STATISTICS, "norm_quantiles"), vectors, strict=True):
                dimensions = len(layout.row_shape(site)) if name in STATISTICS else 1
                file = f"statistics/{site}/{name}/c" + "/0" * dimensions
                files[file] = encode_chunk(vector.astype(np.float64), "none")
        about = self.about | {
            "complete": True,
            "valid_rows": valid_rows,
            "bytes": sum(sum(of_array) for of_array in sizes.values()),
        }
        root = group_json({"tendril": about}, indent=2)
        digests |= {name: file_digest(content) for name, content in files.items()}
        begun = self._listed.begun or digests[METADATA]
        digests[METADATA] = file_digest(root)
        listed = {"bytes": sizes, DIGEST: dict(sorted(digests.items())), CHECKSUMS: checksums}
        files[LIST] = sealed_json({**listed, BEGUN: begun})
        self.folder.write_together(files)
        self.folder.write(METADATA, root)

    def _fixed_digests(self) -> dict[str, str]:
        """The digests of the metadata that do not depend on the shards, as they were created.

        Stores of earlier versions have none on record: `writing` has compared these files.
        """
        names = self._listed.digests or {
            name: "" for name in self.folder.sizes() if name.endswith(METADATA) and name != LIST
        }
        later = re.compile(rf"{RECORDS}/|statistics/.*/c/")
        fixed = [n for n in names if not later.match(n)]
        digests = self._listed.digests
        return {n: digests.get(n) or file_digest(self.folder.read(n)) for n in fixed}

    def _norms(self, site: str) -> Float32[np.ndarray, " r"]:
        """The norms of all valid rows: the only array of the writer that grows with the store."""
        norms = read_column(self.folder, self.layout, f"norms/{site}", np.dtype("float32"))
        kept: Float32[np.ndarray, " r"] = norms[np.isfinite(norms)]
        return kept


def _digest(content: Content) -> dict[str, Any]:
    """The entry of a file in a record."""
    return {"bytes": sum(map(len, pieces_of(content))), DIGEST: file_digest(content)}


def _padded(
    rows: Shaped[np.ndarray, " r *d"], length: int, fill: float | int
) -> Shaped[np.ndarray, " length *d"]:
    """Rows padded with a fill value to a length, as zarr pads the last chunk."""
    if len(rows) == length:
        return rows
    whole = np.full((length, *rows.shape[1:]), fill, rows.dtype)
    whole[: len(rows)] = rows
    return whole
