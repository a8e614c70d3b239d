"""A sweep of sixteen dictionaries against sixteen runs one after the other, reading included."""

import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from tendril.data.store.create import writing
from tendril.data.store.layout import plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.data.store.writer import Written
from tendril.train.config import TrainConfig
from tendril.train.loop import train
from tendril.train.sweep.config import SweepConfig
from tendril.train.sweep.sweep import sweep

from .measure import paired
from .rows import sparse_sums

RUNS, WIDTH, LATENTS, K, BATCH = 16, 480, 960, 32, 4096
ROWS, PER_INPUT = 2**16, 16


def measure_sweep(device: str) -> tuple[float, dict[str, float]]:
    """The time of the runs over that of the sweep, and seconds of both."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write_store(home)
        base = TrainConfig(
            home=str(home),
            device=device,
            objective="topk",
            latents=LATENTS,
            k=K,
            batch_size=BATCH,
            steps=ROWS * 95 // 100 // BATCH,
            eval_rows=BATCH,
        )
        config = SweepConfig(base=base, sparsities=(), seeds=tuple(range(RUNS)))

        def together() -> None:
            shutil.rmtree(home / "runs", ignore_errors=True)
            assert sweep(config).trained == RUNS

        def one_by_one() -> None:
            shutil.rmtree(home / "runs", ignore_errors=True)
            for run in config.runs():
                assert not train(run).reused

        times = paired(together, one_by_one)
    return round(times.ratio, 3), {
        "seconds": round(statistics.median(times.ours), 2),
        "sequential_seconds": round(statistics.median(times.yardstick), 2),
        "steps": base.steps,
    }


def write_store(home: Path) -> None:
    """A store with one site of float16 rows."""
    rows_RD = sparse_sums(ROWS, WIDTH).to(torch.float16).numpy()
    spec = StoreSpec(
        subject={"name": "sums"},
        inputs={"kind": "sums"},
        sites=("sums",),
        positions={"rule": "all"},
        seed=0,
        dtype="float16",
    )
    layout = plan_layout(ROWS // PER_INPUT, PER_INPUT, {"sums": WIDTH}, item_bytes=2)
    path = home / "store" / spec.folder("sums")
    with writing(path, spec, layout, origin={}, environment={}) as writer:
        for shard in writer.missing():
            numbers = layout.shard_inputs(shard)
            place = np.tile(np.arange(PER_INPUT, dtype=np.int32), len(numbers))
            columns = {
                "input": np.repeat(np.array(numbers, dtype=np.int32), PER_INPUT),
                "y": place,
                "x": place * 0,
                "valid": np.ones(len(place), dtype=bool),
            }
            kept = {"sums": rows_RD[layout.row_range(numbers)]}
            writer.write_shard(shard, Written(kept, columns, [str(i) for i in numbers], {}))
        writer.finish()
