"""A subject without a network: rows are a function of (input, position). Restarts cost
milliseconds, so a harvest can be killed often. As a program:
python -m tests.helpers.arithmetic HOME INPUTS SECONDS_A_SLICE [RANK RANKS [ROOM]], where after ROOM
files the disk is full."""

import dataclasses
import errno
import itertools
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tendril.data.cli import run_command
from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.harvest.loop import Harvested, SliceRows, write_store

WIDTHS = {"sine": 12, "wave": 5}
BROKEN = 3  # this input can never be read


def spec(dtype: str = "float16") -> StoreSpec:
    """The identity of an arithmetic harvest."""
    return StoreSpec(
        subject={"name": "arithmetic"},
        inputs={"kind": "numbers"},
        sites=tuple(WIDTHS),
        positions={"rule": "all"},
        seed=0,
        dtype=dtype,
    )


def layout(inputs: int = 50, per_input: int = 6, per_shard: int = 4) -> Layout:
    """Small shards, so that there are many; the last one is short."""
    planned = plan_layout(inputs, per_input, WIDTHS, inputs_per_slice=3)
    fields = vars(planned) | {"inputs_per_chunk": 2, "inputs_per_shard": per_shard}
    return Layout(**fields)


def rows_of(site: str, inputs: range, per_input: int) -> np.ndarray:
    """sin(a input + b position + channel), as float32 rows."""
    row = np.arange(inputs.start * per_input, inputs.stop * per_input)
    value = np.sin(row[:, None] * (1.0 if site == "sine" else 0.37) + np.arange(WIDTHS[site]))
    return value.astype(np.float32)


def produce_slowly(shape: Layout, seconds: float = 0.0):  # type: ignore[no-untyped-def]
    """What the harvesting loop asks for rows."""

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        for inputs in slices:
            time.sleep(seconds)
            per_input = shape.rows_per_input
            position = np.tile(np.arange(per_input), len(inputs))
            yield SliceRows(
                inputs=inputs,
                activations={site: rows_of(site, inputs, per_input) for site in WIDTHS},
                columns={"y": position, "x": position * 0},
                names=[f"number {i}" for i in inputs],
                failures={BROKEN: "three is broken"} if BROKEN in inputs else {},
            )

    return produce


def harvest(
    home: Path, seconds: float = 0.0, rank: int = 0, ranks: int = 1, **options: int
) -> Harvested:
    """A whole arithmetic harvest into home/store."""
    shape = layout(**options)
    return write_store(
        home / spec().folder("arithmetic"),
        spec(),
        shape,
        produce_slowly(shape, seconds),
        origin={},
        environment={"device": "none"},
        rank=rank,
        ranks=ranks,
    )


def fill_the_disk(room: int) -> None:
    """From now on the disk takes so many files and no more."""
    real, count = os.fsync, itertools.count(1)

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode) and next(count) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    os.fsync = fsync


def main() -> dict[str, object]:
    """As the arguments say."""
    home, inputs, seconds, *rest = sys.argv[1:]
    rank, ranks, room = (*(int(r) for r in rest), *(0, 1, 10**9)[len(rest) :])
    fill_the_disk(room)
    done = harvest(Path(home), float(seconds), rank, ranks, inputs=int(inputs))
    return dataclasses.asdict(done)


if __name__ == "__main__":
    run_command(main)
