"""Batches from a server that answers late, beside batches from a disk of this machine."""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tendril.data.store.reader import Store, open_store
from tendril.harvest.loop import write_store

from .measure import PAIRS, machine, paired
from .rows import SITE, layout_of, produce_ready, rows_like, spec_of


@dataclass(frozen=True)
class RemoteBench:
    """Reading ahead over a server that answers late, beside the local rate."""

    rows: int = 196_608
    """Rows of the store: several windows of them."""
    width: int = 480
    """D."""
    late_ms: float = 20.0
    """How long the server waits before each answer."""
    batch_size: int = 4096
    """Rows a batch."""
    window: int = 8
    """Chunks that are mixed at a time; fewer than there are, so that all is read every epoch."""
    pairs: int = PAIRS
    """Pairs of measurements; the median ratio counts."""
    scratch: str = ""
    """Where the store is written; a temporary folder by default."""


def measure(bench: RemoteBench) -> dict[str, Any]:
    """Rows/s of an epoch from the server over those from the disk."""
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
    """The number of rows of batch after batch, without end."""
    stream = store.batches(SITE, bench.batch_size, window=bench.window, part="all")
    return (len(batch) for batch in stream)


def _read(stream: Iterator[int], rows: int) -> None:
    """Take as many rows as an epoch has."""
    for total in itertools.accumulate(stream):
        if total >= rows:
            return


@contextmanager
def late_server(folder: Path, seconds: float) -> Iterator[str]:
    """The URL of a server of a folder, in a process of its own."""
    command = [sys.executable, "-m", "tendril.bench.slow_server", str(folder), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
