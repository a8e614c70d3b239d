"""How the rows of a harvest are divided: inputs into slices and shards, rows into chunks."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from .dtypes import STORED_AS

CHUNK_BYTES = 4 * 2**20  # raw bytes in a chunk of the widest site: about 4096 rows of width 480
CHUNK_ROWS = 4096
SHARD_BYTES = 64 * 2**20  # raw bytes in a shard of a site: bounds the writer's memory
SHARD_INPUTS = 256  # bounds the work that is lost when a harvest is stopped
COMPRESSORS = ("zstd", "lz4", "none")
LARGEST = 2**53  # of the numbers of a layout, and of its rows
IDENTITY = ("widths", "grids", "rows_per_input", "inputs", "columns", "elements")
"""Fields that follow from subject and inputs; the others say how rows are cut into files."""


@dataclass(frozen=True)
class Layout:
    """The shape of a store. Every input has the same number of rows, in the order of the inputs.

    A chunk is read at once and a shard is written at once. Both hold whole inputs, and a shard
    holds whole chunks. A slice is the inputs that the subject processes at once; it never crosses
    a shard. None of this changes the rows, so it is not part of the spec. It is recorded in the
    store, and a resumed harvest follows the record.
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
    elements: int = 0  # G, the order of the group applied to the inputs; 0 without a group

    @property
    def rows(self) -> int:
        """R, the number of rows of the store."""
        return self.inputs * self.rows_per_input

    @property
    def values(self) -> int:
        """The number of activation values of all sites."""
        return self.rows * sum(self.widths.values()) * max(self.elements, 1)

    @property
    def shards(self) -> int:
        """The number of shards; the last one may be short."""
        return -(-self.inputs // self.inputs_per_shard)

    @property
    def rows_per_chunk(self) -> int:
        """Rows in a chunk."""
        return self.inputs_per_chunk * self.rows_per_input

    @property
    def rows_per_shard(self) -> int:
        """Rows in a shard."""
        return self.inputs_per_shard * self.rows_per_input

    @property
    def chunks_per_shard(self) -> int:
        """Chunks in a shard; the last shard may hold fewer."""
        return self.inputs_per_shard // self.inputs_per_chunk

    def row_shape(self, site: str) -> tuple[int, ...]:
        """The shape of a row of a site: [D], or [G, D] with a group."""
        width = self.widths[site]
        return (self.elements, width) if self.elements else (width,)

    def arrays(self, dtype: str) -> dict[str, str]:
        """The arrays that have one file per shard -> their zarr dtype."""
        scales = {f"scales/{s}": "float32" for s in self.widths} if dtype == "int8" else {}
        return (
            {f"activations/{site}": STORED_AS[dtype] for site in self.widths}
            | scales
            | {f"norms/{site}": "float32" for site in self.widths}
            | dict.fromkeys(("input", *self.columns), "int32")
            | {"valid": "bool"}
        )

    def shard_file(self, array: str, shard: int) -> str:
        """The file of a shard of an array, as zarr names it: one number per dimension."""
        kind, _, site = array.partition("/")
        dimensions = len(self.row_shape(site)) if kind == "activations" else 0
        return f"{array}/c/{shard}{'/0' * dimensions}"

    def shard_inputs(self, shard: int) -> range:
        """The inputs of a shard."""
        start = shard * self.inputs_per_shard
        return range(start, min(start + self.inputs_per_shard, self.inputs))

    def slices(self, shard: int) -> Iterator[range]:
        """The slices of a shard, as ranges of inputs."""
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
    """A layout with chunks of about 4 MiB and at most 4096 rows.

    Shards hold at most 64 MiB and `shard_inputs` inputs, but at least one chunk.
    """
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


def is_count(value: object) -> bool:
    """True for a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def layout_fault(given: Mapping[str, Any]) -> str:
    """What a layout on record must have and does not; an empty text if it has all."""
    known = {f.name: f.default is MISSING and f.name != "grids" for f in fields(Layout)}
    if set(given) - set(known):
        return f"no `layout.{min(set(given) - set(known))}`"
    for name, needed in known.items():
        if needed and name not in given:
            return f"`layout.{name}`"
    widths, grids = given["widths"], given.get("grids", {})
    if not isinstance(widths, dict) or not isinstance(grids, dict):
        return "objects in `layout.widths` and `layout.grids`"
    numbers = {f"widths.{site}": width for site, width in widths.items()}
    numbers |= {n: given[n] for n in ("inputs", "rows_per_input", "inputs_per_slice")}
    numbers |= {n: given[n] for n in ("inputs_per_chunk", "inputs_per_shard")}
    for name, number in numbers.items():
        if not is_count(number) or not 0 < number < LARGEST:
            return f"a positive whole number in `layout.{name}`"
    if given["inputs"] * given["rows_per_input"] >= LARGEST:
        return "a possible number of rows in `layout`"
    if given["inputs_per_shard"] % given["inputs_per_chunk"]:
        return "shards of whole chunks in `layout`"
    if not is_count(given.get("elements", 0)):
        return "a whole number in `layout.elements`"
    if given.get("compressor", COMPRESSORS[0]) not in COMPRESSORS:
        return f"a `layout.compressor` of {', '.join(COMPRESSORS)}"
    columns = given["columns"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        return "names in `layout.columns`"
    if not all(isinstance(g, list) and all(map(is_count, g)) for g in grids.values()):
        return "lists of whole numbers in `layout.grids`"
    return ""
