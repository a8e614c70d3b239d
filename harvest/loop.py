"""Slices -> shards -> a complete store. Independent of networks; imports no torch."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped
from tqdm import tqdm

from tendril.data.cli import note, progress_bar
from tendril.data.store.buffers import LentMemory
from tendril.data.store.create import writing
from tendril.data.store.dtypes import NO_ROW, STORED_AS, encode_rows, quantise
from tendril.data.store.labels import Labels
from tendril.data.store.layout import Layout
from tendril.data.store.record import RECORDS, missing_shards
from tendril.data.store.rounding import Rounding, refuse_rounding, rounding_of
from tendril.data.store.spec import StoreSpec
from tendril.data.store.truth import Constants
from tendril.data.store.writer import Encoded, StoreWriter, Written

SHARDS_IN_FLIGHT = 3  # shards that are being encoded or wait to be written
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class SliceRows:
    """The rows of a slice of inputs, and where they come from.

    `activations` has the rows of each site, in float32 or in the dtype of the store. `columns`
    has one number a row, `names` one name an input. `failures` maps the index of an input that
    could not be read to the reason; its rows are NaN. `valid` marks the valid rows of all other
    inputs, by default all. `saturated` maps the index of an image to its number of pixels below
    black or above white.
    """

    inputs: range
    activations: Mapping[str, Shaped[np.ndarray, " r *d"]]
    columns: Mapping[str, Int[np.ndarray, " r"]]
    names: Sequence[str]
    failures: Mapping[int, str] = field(default_factory=dict)
    valid: Bool[np.ndarray, " r"] | None = None
    saturated: Mapping[int, int] = field(default_factory=dict)


Produce = Callable[[Sequence[range]], Iterator[SliceRows]]


@dataclass(frozen=True)
class Harvested:
    """The result of `write_store`: rows written by this process, and the seconds they took."""

    rows: int
    invalid_inputs: int
    seconds: float
    saturated: int = 0


def write_store(
    location: str | Path,
    spec: StoreSpec,
    layout: Layout,
    produce: Produce,
    *,
    origin: Mapping[str, str],
    environment: Mapping[str, Any],
    overwrite: bool = False,
    progress: bool = False,
    overlap: bool = True,
    rank: int = 0,
    ranks: int = 1,
    declared: bool = False,
    labels: Labels | None = None,
    truth: Constants | None = None,
) -> Harvested:
    """Write the missing shards of a store, then complete it.

    `produce` turns slices into rows in the order given, and may work ahead; it must be a pure
    function of the slice. One thread a core encodes a shard, and a further thread writes it.
    With `overlap` both happen while the next shard is produced; without it only the writing
    does, which suits a subject that uses all cores. At most SHARDS_IN_FLIGHT shards wait to be
    written. Each of `ranks` processes writes every ranks-th shard; rank 0 returns when all
    shards are written. Raises OverflowingRowsError, and what `writing` raises.
    """
    began = time.perf_counter()
    rows = failures = saturated = 0
    with (
        writing(
            location,
            spec,
            layout,
            origin=origin,
            environment=environment,
            overwrite=overwrite,
            rank=rank,
            ranks=ranks,
            declared=declared,
            labels=labels,
            truth=truth,
        ) as writer,
        ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="encoder") as encoders,
        ThreadPoolExecutor(SHARDS_IN_FLIGHT, thread_name_prefix="clerk") as clerk,
        ThreadPoolExecutor(SHARDS_IN_FLIGHT, thread_name_prefix="pen") as pen,
    ):
        layout, missing = writer.layout, writer.missing()
        memory = _memory(writer)
        stream = produce([part for shard in missing for part in layout.slices(shard)])
        bar = _bar(layout, missing, progress and rank == 0)
        in_flight: deque[Future[int]] = deque()
        for shard in missing:
            written = _collect(shard, stream, writer, memory, bar)
            rows += len(written.columns["valid"])
            failures += len(written.failures)
            saturated += len(written.saturated)
            encoded = clerk.submit(writer.encode, shard, written, encoders)
            if not overlap:
                wait([encoded])
            in_flight.append(pen.submit(_commit, writer, encoded))
            del written, encoded
            while len(in_flight) > SHARDS_IN_FLIGHT:
                in_flight.popleft().result()
        for job in in_flight:
            job.result()
        bar.close()
        while not writer.finish() and rank == 0:
            _await_others(writer, ranks)
    return Harvested(rows, failures, time.perf_counter() - began, saturated)


def _commit(writer: StoreWriter, encoded: Future[Encoded]) -> int:
    return writer.commit(encoded.result())


def _await_others(writer: StoreWriter, ranks: int) -> None:
    """Wait until every shard has a record. If a rank dies, its launcher stops the others."""
    left = sum(shard % ranks > 0 for shard in missing_shards(writer.folder))
    note(
        f"rank 0 of {ranks} has written its shards and waits for {left} shards of the other ranks. "
        "If they do not run, stop this process and run the same command with --ranks 1."
    )
    there = 0
    while there <= writer.layout.shards:  # plus one: zarr.json of the group of records
        time.sleep(POLL_SECONDS)
        there = len(writer.folder.sizes(RECORDS))


def _memory(writer: StoreWriter) -> dict[str, LentMemory]:
    """Memory for the rows of a shard, reused once the shard is written."""
    layout = writer.layout
    shapes = {site: (layout.rows_per_shard, *layout.row_shape(site)) for site in layout.widths}
    return {site: LentMemory(shape, STORED_AS[writer.dtype]) for site, shape in shapes.items()}


def _collect(
    shard: int,
    stream: Iterator[SliceRows],
    writer: StoreWriter,
    memory: Mapping[str, LentMemory],
    bar: "tqdm[Any]",
) -> Written:
    """Collect the slices of a shard into arrays of the stored dtype."""
    layout, dtype = writer.layout, writer.dtype
    whole = layout.row_range(layout.shard_inputs(shard))
    count = whole.stop - whole.start
    activations = {site: lent.array()[:count] for site, lent in memory.items()}
    scales = {site: np.empty(count, np.float32) for site in layout.widths if dtype == "int8"}
    columns = {name: np.empty(count, np.int32) for name in ("input", *layout.columns)}
    columns["valid"] = np.ones(count, bool)
    rounding: dict[str, Rounding] = {}
    names: list[str] = []
    failures: dict[int, str] = {}
    saturated: dict[int, int] = {}
    for inputs in layout.slices(shard):
        part = next(stream)
        assert part.inputs == inputs, "slices are produced in the order given"
        rows = layout.row_range(inputs)
        at = slice(rows.start - whole.start, rows.stop - whole.start)
        columns["input"][at] = np.repeat(
            np.arange(inputs.start, inputs.stop), layout.rows_per_input
        )
        for name in layout.columns:
            columns[name][at] = part.columns[name]
        if part.valid is not None:
            columns["valid"][at] = part.valid
        for failed in part.failures:
            first = (failed - inputs.start) * layout.rows_per_input + at.start
            columns["valid"][first : first + layout.rows_per_input] = False
        valid = columns["valid"][at]
        kept = slice(None) if valid.all() else valid  # a slice makes no copy
        for site, stored in activations.items():
            where = f"{site} (inputs {inputs.start} to {inputs.stop - 1})"
            taken = part.activations[site][kept]
            if dtype == "int8":
                stored[at][kept], scales[site][at][kept] = quantise(taken, where)
                lost = rounding_of(taken, stored[at][kept], scales[site][at][kept])
                rounding[site] = rounding[site].merge(lost) if site in rounding else lost
                scales[site][at][~valid] = np.nan
            else:
                stored[at][kept] = encode_rows(taken, dtype, where)
            stored[at][~valid] = NO_ROW[dtype]
        names += part.names
        failures |= part.failures
        saturated |= part.saturated
        bar.update(len(inputs))
        bar.set_postfix_str(f"{len(failures)} unreadable" if failures else "", refresh=False)
    for site, lost in rounding.items():
        refuse_rounding(site, lost.summary())
    return Written(activations, columns, names, failures, scales, rounding, saturated)


def _bar(layout: Layout, missing: Sequence[int], progress: bool) -> "tqdm[Any]":
    waiting = sum(len(layout.shard_inputs(shard)) for shard in missing)
    return progress_bar(
        desc="harvest",
        total=layout.inputs,
        initial=layout.inputs - waiting,
        unit="input",
        disable=not progress,
        dynamic_ncols=True,
    )
