"""Shuffled batches from a store, against a raw memmap and a loader of safetensors files.

All give float32 batches of 4096 from the same float16 rows, with a warm file cache. The memmap is
read in blocks of 4096 rows in random order, each permuted. The loader reads files by name into a
buffer of two files, permutes it and yields half of it. The store is read in windows of 16 chunks
(64 MiB) without end, as a trainer reads a large store; `resident_rows_per_s` is measured with all
rows in memory, which is the default for a store of this size.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16
from safetensors.torch import load_file, save_file

from tendril.data.cli import note
from tendril.data.device import keep_freed_memory
from tendril.data.store.reader import open_store
from tendril.harvest.loop import write_store

from .config import ReadBench
from .measure import machine, paired
from .rows import SITE, layout_of, produce_ready, rows_like, spec_of

BLOCK = 4096
WINDOW = 16


def measure(bench: ReadBench) -> dict[str, object]:
    """The ratios (ours over the yardstick, larger is better) and rows per second.

    Names have the width as a suffix, except for the first width.
    """
    keep_freed_memory()  # as every training run does
    ratios: dict[str, float] = {}
    rates: dict[str, float] = {}
    for number, width in enumerate(bench.widths):
        suffix = f"_{width}" if number else ""
        with tempfile.TemporaryDirectory(dir=bench.folder or None) as scratch:
            _measure_width(bench, width, suffix, Path(scratch), ratios, rates)
    return {"what": "read", "ratios": ratios, **rates, **machine()} | vars(bench)


def _measure_width(
    bench: ReadBench,
    width: int,
    suffix: str,
    folder: Path,
    ratios: dict[str, float],
    rates: dict[str, float],
) -> None:
    count = bench.megabytes * 10**6 // (2 * width) // BLOCK * BLOCK
    rows_RD = rows_like(width, count)
    raw = np.lib.format.open_memmap(folder / "raw.npy", "w+", rows_RD.dtype, rows_RD.shape)
    raw[...] = rows_RD
    raw.flush()
    _write_safetensors(folder / "files", rows_RD)
    memmap = _drain(lambda: memmap_batches(folder / "raw.npy", bench.batch_size))
    loader = _drain(lambda: safetensors_batches(folder / "files", bench.batch_size))
    for compressor, name in (("none", "none"), ("zstd", "default"), ("lz4", "lz4")):
        note(f"{count:,} rows of {width}, {compressor} ...")
        path = folder / compressor
        layout = layout_of(count, width, compressor)
        produce = produce_ready(rows_RD)
        write_store(path, spec_of(width), layout, produce, origin={}, environment={})
        store = open_store(path)
        stream = store.batches(SITE, bench.batch_size, part="all", window=WINDOW)
        ours = _drain(partial(islice, stream, count // bench.batch_size))
        times = paired(ours, memmap)
        ratios[f"read_{name}_over_memmap{suffix}"] = round(times.ratio, 3)
        rates[f"read_{name}_rows_per_s{suffix}"] = round(count / _median(times.ours))
        rates[f"memmap_rows_per_s{suffix}"] = round(count / _median(times.yardstick))
        if name == "default":
            times = paired(ours, loader)
            ratios[f"read_default_over_safetensors_loader{suffix}"] = round(times.ratio, 3)
            rates[f"loader_rows_per_s{suffix}"] = round(count / _median(times.yardstick))
            resident = store.batches(SITE, bench.batch_size, part="all", window="all")
            epoch = _drain(partial(islice, resident, count // bench.batch_size))
            rates[f"resident_rows_per_s{suffix}"] = round(
                count / _median(paired(epoch, memmap).ours)
            )
            resident.close()
        stream.close()


def memmap_batches(path: Path, batch_size: int) -> Iterator[torch.Tensor]:
    """Yardstick: blocks of a memory-mapped array in random order, each permuted."""
    rows_RD: Float16[np.ndarray, "r d"] = np.load(path, mmap_mode="r")
    order = np.random.default_rng(0).permutation(len(rows_RD) // BLOCK)
    for block in order:
        block_RD = torch.from_numpy(np.array(rows_RD[block * BLOCK : (block + 1) * BLOCK]))
        mixed_RD = block_RD[torch.randperm(BLOCK)]
        for start in range(0, BLOCK, batch_size):
            yield mixed_RD[start : start + batch_size].float()


def safetensors_batches(folder: Path, batch_size: int) -> Iterator[torch.Tensor]:
    """Yardstick: whole files by name, through a buffer that is permuted at each refill."""
    files = sorted(folder.iterdir())
    buffer_RD = load_file(files[0])[SITE]
    for file in [*files[1:], None]:
        if file is not None:
            buffer_RD = torch.cat([buffer_RD, load_file(file)[SITE]])
        buffer_RD = buffer_RD[torch.randperm(len(buffer_RD))]
        given = len(buffer_RD) // 2 if file is not None else len(buffer_RD)
        for start in range(0, given, batch_size):
            yield buffer_RD[start : min(start + batch_size, given)].float()
        buffer_RD = buffer_RD[given:]


def _write_safetensors(folder: Path, rows_RD: Float16[np.ndarray, "r d"]) -> None:
    folder.mkdir()
    per_file = max(1, 64 * 2**20 // rows_RD[0].nbytes)
    for number, start in enumerate(range(0, len(rows_RD), per_file)):
        part = torch.from_numpy(rows_RD[start : start + per_file].copy())
        save_file({SITE: part}, folder / f"{number:05d}.safetensors")


def _drain(batches: Callable[[], Iterator[torch.Tensor]]) -> Callable[[], None]:
    def run() -> None:
        for batch in batches():
            batch[0, 0].item()

    return run


def _median(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2]
