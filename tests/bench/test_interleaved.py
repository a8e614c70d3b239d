"""A harvest timed together with a bare forward pass that runs in its pauses."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tendril.bench.interleaved import interleaved
from tendril.data.store.layout import Layout
from tendril.data.store.record import record_name
from tendril.harvest.loop import Produce, SliceRows

SLICE, SHARD, INPUTS = 2, 4, 11
SHORT = 0.005  # seconds


def test_all_work_of_a_harvest_counts_and_no_pause_does(tmp_path: Path) -> None:
    layout = _layout()
    slices = [part for shard in range(layout.shards) for part in layout.slices(shard)]
    paused_at: list[tuple[range, int]] = []

    def write(produce: Produce) -> None:
        assert not tmp_path.exists()
        stream = produce(slices)
        for shard in range(layout.shards):
            for number, _ in enumerate(layout.slices(shard)):
                next(stream)
                if shard and number == 0:  # the previous shard is written only now
                    _commit(tmp_path, shard - 1)
        time.sleep(4 * SHORT)  # writing the last shard

    def yardstick(inputs: range) -> None:
        paused_at.append((inputs, sum(1 for _ in tmp_path.glob("records/*/zarr.json"))))
        time.sleep(SHORT)

    began = time.perf_counter()
    times = interleaved(write, _produce, yardstick, layout, tmp_path, rounds=2)
    whole = time.perf_counter() - began
    assert [inputs for inputs, _ in paused_at] == 3 * slices
    # After slice 1 the first shard is produced but not yet written, so the yardstick waits.
    assert [committed for _, committed in paused_at[:6]] == [0, 1, 1, 2, 2, 2]
    at_least = 6 * SHORT + 4 * SHORT
    assert len(times.ours) == len(times.yardstick) == 2
    for ours, theirs in zip(times.ours, times.yardstick, strict=True):
        assert ours >= at_least
        assert theirs >= 6 * SHORT
    warming_up = at_least + 6 * SHORT
    assert sum(times.ours) + sum(times.yardstick) <= whole - warming_up
    assert times.ratio == pytest.approx(np.median(times.ratios))


def _produce(slices: Sequence[range]) -> Iterator[SliceRows]:
    for inputs in slices:
        time.sleep(SHORT)
        yield SliceRows(inputs, {}, {}, [])


def _commit(location: Path, shard: int) -> None:
    (location / record_name(shard)).parent.mkdir(parents=True, exist_ok=True)
    (location / record_name(shard)).write_bytes(b"{}")


def _layout() -> Layout:
    return Layout(
        inputs=INPUTS,
        rows_per_input=1,
        widths={},
        columns=(),
        inputs_per_slice=SLICE,
        inputs_per_chunk=SHARD,
        inputs_per_shard=SHARD,
    )
