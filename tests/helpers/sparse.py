"""Vectors that are sparse sums of known directions, and a store of them.
As a program, trains on such a store: python -m tests.helpers.sparse HOME STEPS."""

import sys
from pathlib import Path

import numpy as np

from tendril.data.store.create import writing
from tendril.data.store.dtypes import ITEM_BYTES, encode_rows, quantise
from tendril.data.store.layout import plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.data.store.writer import Written
from tendril.train.config import TrainConfig

PER_INPUT = 16


def directions(features: int = 64, width: int = 32, seed: int = 0) -> np.ndarray:
    """The truth: unit rows [features, width]."""
    rows = np.random.default_rng(seed).standard_normal((features, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def vectors(count: int, truth_SD: np.ndarray, on: int = 3, seed: int = 1) -> np.ndarray:
    """Sums of `on` directions each, with amounts from 1 to 2, far from the origin."""
    random = np.random.default_rng(seed)
    which = random.random((count, len(truth_SD))).argsort(axis=1)[:, :on]
    z_NS = np.zeros((count, len(truth_SD)), dtype=np.float32)
    np.put_along_axis(z_NS, which, random.uniform(1, 2, which.shape).astype(np.float32), axis=1)
    x_ND: np.ndarray = z_NS @ truth_SD + 0.5
    return x_ND


def make_store(
    home: Path,
    sites: dict[str, np.ndarray],
    name: str = "sparse",
    orbit: object = None,
    dtype: str = "float32",
) -> Path:
    """A complete store of rows, one array [rows, width] a site, or with an `orbit`
    [rows, elements, width]."""
    shapes = {site: rows.shape[1:] for site, rows in sites.items()}
    widths = {site: shape[-1] for site, shape in shapes.items()}
    elements = next(iter(shapes.values()))[0] if orbit else 0
    inputs = len(next(iter(sites.values()))) // PER_INPUT
    spec = StoreSpec(
        subject={"name": name},
        inputs={"kind": "sparse"} | ({"orbit": orbit} if orbit else {}),
        sites=tuple(sites),
        positions={"rule": "all"},
        seed=0,
        dtype=dtype,
    )
    layout = plan_layout(inputs, PER_INPUT, widths, item_bytes=ITEM_BYTES[dtype], elements=elements)
    path = home / "store" / spec.folder(name)
    with writing(path, spec, layout, origin={}, environment={}) as writer:
        for shard in writer.missing():
            numbers = layout.shard_inputs(shard)
            rows = layout.row_range(numbers)
            place = np.tile(np.arange(PER_INPUT, dtype=np.int32), len(numbers))
            columns = {
                "input": np.repeat(np.array(numbers, dtype=np.int32), PER_INPUT),
                "y": place,
                "x": place * 0,
                "valid": np.ones(len(place), dtype=bool),
            }
            names = [f"number {i}" for i in numbers]
            kept = {site: values[rows].astype(np.float32) for site, values in sites.items()}
            scales: dict[str, np.ndarray] = {}
            for site, values in kept.items():
                if dtype == "int8":
                    kept[site], scales[site] = quantise(values, site)
                else:
                    kept[site] = encode_rows(values, dtype, site)
            writer.write_shard(shard, Written(kept, columns, names, {}, scales))
        writer.finish()
    return path


def tiny(home: Path, **fields: object) -> TrainConfig:
    """A run of a second."""
    small: dict[str, object] = {
        "home": str(home),
        "device": "cpu",
        "latents": 64,
        "k": 3,
        "steps": 60,
        "batch_size": 128,
        "dead_after": 1024,
        "log_every": 5,
        "checkpoint_every": 7,
    }
    return TrainConfig(**(small | fields))  # type: ignore[arg-type]


if __name__ == "__main__":
    from tendril.train.loop import train

    train(tiny(Path(sys.argv[1]), steps=int(sys.argv[2])))
