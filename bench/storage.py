"""Bytes per row of every dtype and compressor, on the rows of a store, and the speed of encoding
and decoding on one core. `ratios` are the bytes of raw float16 over the bytes stored.
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Shaped

from tendril.data.home import find_store
from tendril.data.store.codec import decode_chunk, encode_chunk
from tendril.data.store.dtypes import DTYPES, encode_rows, quantise
from tendril.data.store.layout import COMPRESSORS
from tendril.data.store.reader import open_store

from .config import StorageBench
from .measure import machine

REPEATS = 5
ROWS = 4096  # in a chunk


def measure(bench: StorageBench) -> dict[str, object]:
    """Bytes per row, and MB/s of raw float16, for each dtype and compressor."""
    store = open_store(find_store(bench.store, bench.home))
    site = store.check_site(bench.site or store.sites[0])
    valid = np.flatnonzero(store.column("valid"))
    starts = np.linspace(0, max(0, len(valid) - ROWS), bench.chunks).astype(int)
    chunks = [store.read(site, valid[start : start + ROWS]) for start in starts]
    raw_bytes = 2 * store.width(site)
    table, ratios = [], {}
    for dtype in DTYPES:
        for compressor in COMPRESSORS:
            row = _measure_one(chunks, dtype, compressor)
            table.append({"dtype": dtype, "compressor": compressor, **row})
            ratios[f"{dtype}_{compressor}"] = round(raw_bytes / row["bytes_per_row"], 3)
    zeros = float(np.mean([np.mean(chunk == 0) for chunk in chunks]))
    return {
        "what": "storage",
        "store": store.name,
        "site": site,
        "width": store.width(site),
        "zeros": round(zeros, 3),
        "raw_float16_bytes_per_row": raw_bytes,
        "ratios": ratios,
        "table": table,
        **machine(),
    }


def _measure_one(
    chunks: list[Float32[np.ndarray, "_ d"]], dtype: str, compressor: str
) -> dict[str, float]:
    """Bytes per row (with the scale for int8), and MB of raw float16 per second."""
    stored: list[Shaped[np.ndarray, "_ d"]] = []
    for chunk in chunks:
        stored.append(
            quantise(chunk, "here")[0] if dtype == "int8" else encode_rows(chunk, dtype, "here")
        )
    packed = [np.frombuffer(encode_chunk(rows, compressor), np.uint8) for rows in stored]
    out = np.empty_like(stored[0])
    raw_mb = sum(rows.size for rows in stored) * 2 / 1e6
    count = sum(len(rows) for rows in stored)

    def pack() -> None:
        for rows in stored:
            encode_chunk(rows, compressor)

    def unpack() -> None:
        for content in packed:
            decode_chunk(content, compressor, out)

    scale = 4 * count if dtype == "int8" else 0
    return {
        "bytes_per_row": round((sum(map(len, packed)) + scale) / count, 1),
        "pack_mb_per_s": round(raw_mb / _best(pack)),
        "unpack_mb_per_s": round(raw_mb / _best(unpack)),
    }


def _best(run: Callable[[], None]) -> float:
    def once() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return min(once() for _ in range(REPEATS))
