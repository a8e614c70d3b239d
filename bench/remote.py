"""Batches from a server with a latency, against batches from the local disk."""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tendril.data.store.reader import Store, open_store
from tendril.harvest.loop import write_store

from .config import RemoteBench
from .measure import machine, paired
from .rows import SITE, layout_of, produce_ready, rows_like, spec_of


def measure(bench: RemoteBench) -> dict[str, Any]:
    """Rows per second of an epoch from the server, over those from the local disk."""
    with tempfile.TemporaryDirectory(dir=bench.scratch or None) as scratch:
        path = Path(scratch) / "store"
        layout = layout_of(bench.rows, bench.width, "zstd")
        write_store(
            path,
            spec_of(bench.width),
            layout,
            produce_ready(rows_like(bench.width, bench.rows)),
            origin={},
            environment={},
        )
        with late_server(Path(scratch), bench.late_ms / 1000) as url:
            here, there = (_epochs(open_store(at), bench) for at in (path, f"{url}/store"))
            rows = bench.rows
            late_over_local = paired(
                lambda: _read(there, rows), lambda: _read(here, rows), bench.pairs
            )
            one_at_a_time = bench.late_ms / 1000 * -(-layout.rows // layout.rows_per_chunk)
    return {
        "machine": machine(),
        "config": vars(bench),
        "chunks": -(-layout.rows // layout.rows_per_chunk),
        "seconds_late_if_one_at_a_time": one_at_a_time,
        "rows_per_s": {
            "late": bench.rows / sorted(late_over_local.ours)[bench.pairs // 2],
            "local": bench.rows / sorted(late_over_local.yardstick)[bench.pairs // 2],
        },
        "ratios": {"read_late_over_local": late_over_local.ratio},
    }


def _epochs(store: Store, bench: RemoteBench) -> Iterator[int]:
    """The number of rows in each batch of an endless stream."""
    stream = store.batches(SITE, bench.batch_size, window=bench.window, part="all")
    return (len(batch) for batch in stream)


def _read(stream: Iterator[int], rows: int) -> None:
    """Read one epoch of rows."""
    for total in itertools.accumulate(stream):
        if total >= rows:
            return


@contextmanager
def late_server(folder: Path, seconds: float) -> Iterator[str]:
    """Serve a folder from a process of its own; yields the URL."""
    command = [sys.executable, "-m", "tendril.bench.slow_server", str(folder), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
