"""How the rows of a harvest are cut: inputs -> slices -> shards, rows -> chunks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .dtypes import STORED_AS

CHUNK_BYTES = 4 * 2**20  # raw bytes of the widest site's chunk: about 4096 rows of width 480
CHUNK_ROWS = 4096
SHARD_BYTES = 64 * 2**20  # raw bytes of a site's shard: bounds what the writer holds
SHARD_INPUTS = 256  # bounds the work that a stop costs
COMPRESSORS = ("zstd", "lz4", "none")


@dataclass(frozen=True)
class Layout:
    """The shape of a store. Every input has the same number of rows; rows follow inputs.

    A chunk (read at once) and a shard (written at once) hold whole inputs, a shard whole
    chunks; a slice is what the subject sees at once, and never crosses a shard. None of this
    changes the rows, so none of it is in the spec; it is recorded in the store, and whoever
    resumes a harvest goes by the record.
    """

    inputs: int
    rows_per_input: int
    widths: Mapping[str, int]
    columns: tuple[str, ...]
    inputs_per_slice: int
    inputs_per_chunk: int
    inputs_per_shard: int
    compressor: str = "zstd"
    grids: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    elements: int = 0  # G, of the group that inputs were taken through; 0 is no group

    @property
    def rows(self) -> int:
        """R, the rows of the whole store."""
        return self.inputs * self.rows_per_input

    @property
    def values(self) -> int:
        """Numbers in the rows of all sites."""
        return self.rows * sum(self.widths.values()) * max(self.elements, 1)

    @property
    def shards(self) -> int:
        """How many shards there are; the last may be short."""
        return -(-self.inputs // self.inputs_per_shard)

    @property
    def rows_per_chunk(self) -> int:
        """Rows read at once."""
        return self.inputs_per_chunk * self.rows_per_input

    @property
    def rows_per_shard(self) -> int:
        """Rows written at once."""
        return self.inputs_per_shard * self.rows_per_input

    @property
    def chunks_per_shard(self) -> int:
        """How many chunks a shard holds; the last shard may hold fewer."""
        return self.inputs_per_shard // self.inputs_per_chunk

    def row_shape(self, site: str) -> tuple[int, ...]:
        """The shape of a row: [D], or [G, D]."""
        width = self.widths[site]
        return (self.elements, width) if self.elements else (width,)

    def arrays(self, dtype: str) -> dict[str, str]:
        """Every array with a file a shard -> the dtype of its numbers."""
        scales = {f"scales/{s}": "float32" for s in self.widths} if dtype == "int8" else {}
        return (
            {f"activations/{site}": STORED_AS[dtype] for site in self.widths}
            | scales
            | {f"norms/{site}": "float32" for site in self.widths}
            | dict.fromkeys(("input", *self.columns), "int32")
            | {"valid": "bool"}
        )

    def shard_file(self, array: str, shard: int) -> str:
        """The file of a shard in an array, as zarr names it: a number for each dimension."""
        kind, _, site = array.partition("/")
        dimensions = len(self.row_shape(site)) if kind == "activations" else 0
        return f"{array}/c/{shard}{'/0' * dimensions}"

    def shard_inputs(self, shard: int) -> range:
        """The inputs of a shard."""
        start = shard * self.inputs_per_shard
        return range(start, min(start + self.inputs_per_shard, self.inputs))

    def slices(self, shard: int) -> Iterator[range]:
        """The slices of a shard, each a range of inputs."""
        inputs = self.shard_inputs(shard)
        for start in range(inputs.start, inputs.stop, self.inputs_per_slice):
            yield range(start, min(start + self.inputs_per_slice, inputs.stop))

    def row_range(self, inputs: range) -> slice:
        """The rows of a range of inputs."""
        return slice(inputs.start * self.rows_per_input, inputs.stop * self.rows_per_input)


def plan_layout(
    inputs: int,
    rows_per_input: int,
    widths: Mapping[str, int],
    *,
    columns: tuple[str, ...] = ("y", "x"),
    grids: Mapping[str, tuple[int, int]] | None = None,
    inputs_per_slice: int = 8,
    compressor: str = "zstd",
    item_bytes: int = 2,
    elements: int = 0,
    shard_inputs: int = SHARD_INPUTS,
) -> Layout:
    """Chunks of about 4 MiB and at most 4096 rows; shards of at most 64 MiB and 256 inputs
    (fewer where each takes long), but at least one chunk."""
    row_bytes = max(widths.values()) * item_bytes * max(elements, 1)
    chunk_rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes))
    per_chunk = min(inputs, shard_inputs, max(1, round(chunk_rows / rows_per_input)))
    chunk_bytes = per_chunk * rows_per_input * row_bytes
    chunks = max(1, min(shard_inputs // per_chunk, SHARD_BYTES // chunk_bytes))
    return Layout(
        inputs=inputs,
        rows_per_input=rows_per_input,
        widths=dict(widths),
        columns=columns,
        inputs_per_slice=inputs_per_slice,
        inputs_per_chunk=per_chunk,
        inputs_per_shard=per_chunk * chunks,
        compressor=compressor,
        grids=dict(grids or {}),
        elements=elements,
    )
