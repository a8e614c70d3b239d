"""A harvest with the bare pass in its pauses, slice by slice: on a machine whose speed changes
within seconds whole runs in turns still differ by ten percent, neighbouring slices do not."""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tendril.data.store.layout import Layout
from tendril.data.store.record import record_name
from tendril.harvest.loop import Produce, SliceRows

from .measure import Paired, seconds_of, synchronise


def interleaved(
    write: Callable[[Produce], object],
    produce: Produce,
    yardstick: Callable[[range], object],
    layout: Layout,
    location: Path,
    rounds: int,
) -> Paired:
    """Seconds of `write(produce)`, which makes the whole store at `location`, without its
    pauses, and of `yardstick` over the same slices; the first round warms up. What was at
    `location` is removed before each round, untimed.

    There is a pause after each slice, but none while a shard is on its way to the disk: all
    that a harvest does beside its pass weighs on the harvest. Slices that had none are caught
    up with in the next one, the last ones when the store is complete.
    """
    ours: list[float] = []
    theirs: list[float] = []
    paused: list[float] = []
    waiting: deque[range] = deque()

    def pause() -> None:
        synchronise()
        began = time.perf_counter()
        while waiting:
            theirs[-1] += seconds_of(partial(yardstick, waiting.popleft()))
        paused[-1] += time.perf_counter() - began

    def with_pauses(slices: Sequence[range]) -> Iterator[SliceRows]:
        for rows in produce(slices):
            waiting.append(rows.inputs)
            yield rows
            if _on_disk(location, rows.inputs.stop // layout.inputs_per_shard):
                pause()

    for _ in range(1 + rounds):
        shutil.rmtree(location, ignore_errors=True)
        theirs.append(0.0)
        paused.append(0.0)
        whole = seconds_of(lambda: write(with_pauses))
        ours.append(whole - paused[-1])
        pause()
    return Paired(ours[1:], theirs[1:])


def _on_disk(location: Path, shards: int) -> bool:
    """Whether the first of the shards are there."""
    return all((location / record_name(shard)).is_file() for shard in range(shards))
