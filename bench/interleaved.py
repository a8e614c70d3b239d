"""Time a harvest and a bare forward pass slice by slice.

On a machine whose speed changes within seconds, alternating whole runs still differ by 10 %;
neighbouring slices do not.
"""

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
    """Time `write(produce)`, which makes the whole store at `location`, and the yardstick.

    The harvest pauses after a slice, and the yardstick runs on the same slice. There is no pause
    while a shard is being written, so that all of this work counts for the harvest; the yardstick
    runs on those slices in the next pause, or once the store is complete. Pauses do not count for
    the harvest. The first round warms up. `location` is removed before each round, untimed.
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
    """True if the first `shards` shards are written."""
    return all((location / record_name(shard)).is_file() for shard in range(shards))
