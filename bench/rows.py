"""Made-up rows for the benchmarks of the store: like activations after a ReLU, and like a
residual stream."""

import numpy as np
from jaxtyping import Float16

from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.harvest.loop import Produce, SliceRows

PER_INPUT = 256
SITE = "rows"


def sparse_rows(count: int, width: int, seed: int = 0) -> Float16[np.ndarray, "r d"]:
    """Five in six values zero, as mixed3b's are."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, width), np.float32)
    rows -= np.float32(0.967)  # a sixth of a normal is above
    half: Float16[np.ndarray, "r d"] = np.maximum(rows, 0).astype(np.float16)
    return half


def dense_rows(count: int, width: int, seed: int = 0) -> Float16[np.ndarray, "r d"]:
    """No zeros, and channels of very different size, as a residual stream's are."""
    random = np.random.default_rng(seed)
    scale = np.exp(random.standard_normal(width, np.float32))
    return (random.standard_normal((count, width), np.float32) * scale).astype(np.float16)


def rows_like(width: int, count: int) -> Float16[np.ndarray, "r d"]:
    """The rows that a width stands for: 480 is mixed3b, 4096 a residual stream."""
    return sparse_rows(count, width) if width < 1024 else dense_rows(count, width)


def spec_of(width: int) -> StoreSpec:
    """The identity of a store of made-up rows."""
    return StoreSpec(
        subject={"name": "rows"},
        inputs={"kind": "rows", "width": width},
        sites=(SITE,),
        positions={"rule": "all"},
        seed=0,
        dtype="float16",
    )


def layout_of(rows: int, width: int, compressor: str) -> Layout:
    """Cut as any harvest's rows are."""
    return plan_layout(
        rows // PER_INPUT, PER_INPUT, {SITE: width}, inputs_per_slice=16, compressor=compressor
    )


def produce_ready(rows_RD: Float16[np.ndarray, "r d"]) -> Produce:
    """A subject that costs nothing: its rows are there."""

    def produce(slices):  # type: ignore[no-untyped-def]
        for inputs in slices:
            at = slice(inputs.start * PER_INPUT, inputs.stop * PER_INPUT)
            place = np.tile(np.arange(PER_INPUT), len(inputs))
            yield SliceRows(
                inputs=inputs,
                activations={SITE: rows_RD[at]},
                columns={"y": place, "x": place * 0},
                names=[str(i) for i in inputs],
            )

    return produce
