"""Writing a store, against a plain safetensors writer with two threads.

Both write the same float16 rows from memory in files of about 64 MiB. The store also checks rows
for overflow, computes moments and norms, checksums chunks and files, and fsyncs every file. The
yardstick fsyncs its files, too; `..._over_unsynced_safetensors` is against files that may still be
in the cache. The files of earlier turns are removed outside the timing.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16
from safetensors.torch import save_file

from tendril.data.cli import note
from tendril.data.device import keep_freed_memory
from tendril.harvest.loop import write_store

from .config import WriteBench
from .measure import machine, paired
from .rows import SITE, layout_of, produce_ready, rows_like, spec_of

FILE_BYTES = 64 * 2**20


def measure(bench: WriteBench) -> dict[str, object]:
    """The ratios (ours over the yardstick, larger is better) and rows per second.

    Names have the width as a suffix, except for the first width.
    """
    keep_freed_memory()  # as in a harvest
    ratios: dict[str, float] = {}
    rates: dict[str, float] = {}
    for number, width in enumerate(bench.widths):
        suffix = f"_{width}" if number else ""
        count = bench.megabytes * 10**6 // (2 * width) // 4096 * 4096
        rows_RD = rows_like(width, count)
        with tempfile.TemporaryDirectory(dir=bench.folder or None) as scratch:
            folder = Path(scratch)
            for compressor, name in (("none", "none"), ("zstd", "default"), ("lz4", "lz4")):
                for sync in (True, False):
                    against = "safetensors" if sync else "unsynced_safetensors"
                    note(f"{count:,} rows of {width}, {compressor}, against {against} ...")
                    times = paired(
                        _ours(folder / "store", rows_RD, compressor),
                        _yardstick(folder / "files", rows_RD, sync),
                        clear=partial(_clear, folder),
                    )
                    ratios[f"write_{name}_over_{against}{suffix}"] = round(times.ratio, 3)
                    rates[f"write_{name}_rows_per_s{suffix}"] = _rate(count, times.ours)
                    rates[f"{against}_rows_per_s{suffix}"] = _rate(count, times.yardstick)
                _ours(folder / "store", rows_RD, compressor)()
                size = sum(f.stat().st_size for f in (folder / "store").rglob("*") if f.is_file())
                rates[f"write_{name}_bytes_per_row{suffix}"] = round(size / count, 1)
    return {"what": "write", "ratios": ratios, **rates, **machine()} | vars(bench)


def _ours(path: Path, rows_RD: Float16[np.ndarray, "r d"], compressor: str) -> Callable[[], None]:
    layout = layout_of(len(rows_RD), rows_RD.shape[1], compressor)
    spec, produce = spec_of(rows_RD.shape[1]), produce_ready(rows_RD)

    def run() -> None:
        write_store(path, spec, layout, produce, origin={}, environment={}, overwrite=True)

    return run


def _yardstick(folder: Path, rows_RD: Float16[np.ndarray, "r d"], sync: bool) -> Callable[[], None]:
    per_file = max(1, FILE_BYTES // rows_RD[0].nbytes)
    starts = range(0, len(rows_RD), per_file)

    def write(start: int) -> None:
        path = folder / f"{start:09d}.safetensors"
        save_file({SITE: torch.from_numpy(rows_RD[start : start + per_file])}, path)
        if sync:
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def run() -> None:
        folder.mkdir(exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, starts))

    return run


def _clear(folder: Path) -> None:
    """Remove the files of earlier turns, and flush the file cache."""
    for name in ("store", "files"):
        shutil.rmtree(folder / name, ignore_errors=True)
    os.sync()


def _rate(count: int, seconds: list[float]) -> int:
    return round(count / sorted(seconds)[len(seconds) // 2])
