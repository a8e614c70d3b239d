"""Random rows for the benchmarks of the store: like activations after a ReLU, and like a residual
stream."""

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor
from torch.nn import functional

from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.harvest.loop import Produce, SliceRows

PER_INPUT = 256
SITE = "rows"


def sparse_rows(count: int, width: int, seed: int = 0) -> Float16[np.ndarray, "r d"]:
    """Rows with five in six values zero, as at mixed3b."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, width), np.float32)
    rows -= np.float32(0.967)  # a standard normal exceeds this with probability 1/6
    half: Float16[np.ndarray, "r d"] = np.maximum(rows, 0).astype(np.float16)
    return half


def dense_rows(count: int, width: int, seed: int = 0) -> Float16[np.ndarray, "r d"]:
    """Rows without zeros and with channels of very different scale, as in a residual stream."""
    random = np.random.default_rng(seed)
    scale = np.exp(random.standard_normal(width, np.float32))
    return (random.standard_normal((count, width), np.float32) * scale).astype(np.float16)


def sparse_sums(count: int, width: int) -> Float[Tensor, "n d"]:
    """Sums of 20 out of 4 D random directions with coefficients in (0, 1), plus some noise.

    They are scaled to E||x||^2 = D.
    """
    generator = torch.Generator().manual_seed(0)
    directions = functional.normalize(torch.randn(4 * width, width, generator=generator))
    which = torch.randint(4 * width, (count, 20), generator=generator)
    amounts = torch.rand(count, 20, generator=generator)
    x_ND = functional.embedding_bag(which, directions, per_sample_weights=amounts, mode="sum")
    x_ND += 0.02 * torch.randn(count, width, generator=generator)
    return x_ND * (width / x_ND.square().sum(dim=1).mean()).sqrt()


def rows_like(width: int, count: int) -> Float16[np.ndarray, "r d"]:
    """Rows for a width: below 1024 like mixed3b, above like a residual stream."""
    return sparse_rows(count, width) if width < 1024 else dense_rows(count, width)


def spec_of(width: int) -> StoreSpec:
    """The spec of a store of random rows."""
    return StoreSpec(
        subject={"name": "rows"},
        inputs={"kind": "rows", "width": width},
        sites=(SITE,),
        positions={"rule": "all"},
        seed=0,
        dtype="float16",
    )


def layout_of(rows: int, width: int, compressor: str) -> Layout:
    """The layout that a harvest of such rows would have."""
    return plan_layout(
        rows // PER_INPUT, PER_INPUT, {SITE: width}, inputs_per_slice=16, compressor=compressor
    )


def produce_ready(rows_RD: Float16[np.ndarray, "r d"]) -> Produce:
    """The rows as if a subject had produced them in no time."""

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
