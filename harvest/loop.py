"""Slices -> shards -> a complete store. Knows nothing of networks, and imports no torch."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int
from tqdm import tqdm

from data.layout import Layout
from data.rows import STORED_AS, encode_rows
from data.spec import StoreSpec
from data.store import StoreWriter, Written, writing


@dataclass(frozen=True)
class SliceRows:
    """What a slice of inputs became: float32 rows for each site, and where they come from.

    `columns` has one number a row, `names` one name an input; `failures` maps the number of
    an input that could not be read to the reason, and its rows are NaN.
    """

    inputs: range
    activations: Mapping[str, Float32[np.ndarray, "r d"]]
    columns: Mapping[str, Int[np.ndarray, " r"]]
    names: Sequence[str]
    failures: Mapping[int, str] = field(default_factory=dict)


Produce = Callable[[Sequence[range]], Iterator[SliceRows]]


@dataclass(frozen=True)
class Harvested:
    """What a run of the loop did."""

    rows: int
    invalid_inputs: int
    seconds: float


def write_store(
    path: Path,
    spec: StoreSpec,
    layout: Layout,
    produce: Produce,
    *,
    origin: Mapping[str, str],
    environment: Mapping[str, Any],
    overwrite: bool = False,
    progress: bool = False,
) -> Harvested:
    """Write the shards that are missing, then complete the store.

    `produce` turns slices into rows, in the order given, and may work ahead; it must be a
    pure function of the slice. A shard is encoded and written while the next is produced.
    """
    began = time.perf_counter()
    rows = failures = 0
    with (
        writing(
            path, spec, layout, origin=origin, environment=environment, overwrite=overwrite
        ) as writer,
        ThreadPoolExecutor(1, thread_name_prefix="shard-writer") as pen,
    ):
        layout, missing = writer.layout, writer.missing()
        stream = produce([part for shard in missing for part in layout.slices(shard)])
        bar = _bar(layout, missing, progress)
        writing_last: Future[int] | None = None
        for shard in missing:
            written = _collect(shard, stream, writer, bar)
            rows += len(written.columns["valid"])
            failures += len(written.failures)
            if writing_last:
                writing_last.result()
            writing_last = pen.submit(writer.write_shard, shard, written)
        if writing_last:
            writing_last.result()
        bar.close()
        writer.finish()
    return Harvested(rows, failures, time.perf_counter() - began)


def _collect(
    shard: int, stream: Iterator[SliceRows], writer: StoreWriter, bar: "tqdm[Any]"
) -> Written:
    """The slices of a shard, one after the other, into whole arrays of the stored dtype."""
    layout, dtype = writer.layout, writer.dtype
    whole = layout.row_range(layout.shard_inputs(shard))
    count = whole.stop - whole.start
    activations = {
        site: np.empty((count, width), STORED_AS[dtype]) for site, width in layout.widths.items()
    }
    columns = {name: np.empty(count, np.int32) for name in ("input", *layout.columns)}
    columns["valid"] = np.ones(count, bool)
    names: list[str] = []
    failures: dict[int, str] = {}
    for inputs in layout.slices(shard):
        part = next(stream)
        assert part.inputs == inputs, "slices are produced in the order asked for"
        rows = layout.row_range(inputs)
        at = slice(rows.start - whole.start, rows.stop - whole.start)
        columns["input"][at] = np.repeat(
            np.arange(inputs.start, inputs.stop), layout.rows_per_input
        )
        for name in layout.columns:
            columns[name][at] = part.columns[name]
        for failed in part.failures:
            first = (failed - inputs.start) * layout.rows_per_input + at.start
            columns["valid"][first : first + layout.rows_per_input] = False
        valid = columns["valid"][at]
        for site, stored in activations.items():
            where = f"{site} (inputs {inputs.start} to {inputs.stop - 1})"
            stored[at][valid] = encode_rows(part.activations[site][valid], dtype, where)
            stored[at][~valid] = _nan(stored.dtype)
        names += part.names
        failures |= part.failures
        bar.update(len(inputs))
        bar.set_postfix_str(f"{len(failures)} unreadable" if failures else "", refresh=False)
    return Written(activations, columns, names, failures)


def _nan(dtype: np.dtype[Any]) -> float | int:
    return float("nan") if dtype.kind == "f" else 0x7FC0  # the bits of bfloat16's NaN


def _bar(layout: Layout, missing: Sequence[int], progress: bool) -> "tqdm[Any]":
    waiting = sum(len(layout.shard_inputs(shard)) for shard in missing)
    return tqdm(
        desc="harvest",
        total=layout.inputs,
        initial=layout.inputs - waiting,
        unit="input",
        disable=not progress,
        dynamic_ncols=True,
    )
