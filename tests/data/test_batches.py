"""Batches: equal to a slow reference, and properties that hold for any arguments."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.data.store.create import writing
from tendril.data.store.dtypes import encode_rows, quantise
from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.reader import Store, open_store
from tendril.data.store.spec import StoreSpec
from tendril.data.store.writer import Written

PER_INPUT = 5
INPUTS = 47
WIDTHS = {"near": 3, "far": 4}
BROKEN = (0, 11, 12, 13)  # 11 to 13 include a whole chunk


def write(path: Path, dtype: str = "float32", elements: int = 0, inputs: int = INPUTS) -> Path:
    """A small store of random rows; in float32 the first value of a row is its number."""
    spec = StoreSpec({"name": "random"}, {}, tuple(WIDTHS), {"rule": "all"}, 0, dtype)
    planned = plan_layout(inputs, PER_INPUT, WIDTHS, elements=elements)
    shape = Layout(**vars(planned) | {"inputs_per_chunk": 2, "inputs_per_shard": 6})
    with writing(path, spec, shape, origin={}, environment={}) as writer:
        for shard in writer.missing():
            writer.write_shard(shard, shard_of(shape, dtype, shard))
        assert writer.finish()
    return path


def rows_of(shape: Layout, site: str) -> np.ndarray:
    """All rows of a site, float32."""
    size = (shape.rows, *shape.row_shape(site))
    rows = np.random.default_rng(len(site)).normal(size=size).astype(np.float32)
    rows.reshape(shape.rows, -1)[:, 0] = np.arange(shape.rows)
    return rows


def shard_of(shape: Layout, dtype: str, shard: int) -> Written:
    """The content of a shard for the writer."""
    inputs = shape.shard_inputs(shard)
    at = shape.row_range(inputs)
    rows = {site: rows_of(shape, site)[at] for site in WIDTHS}
    number = np.repeat(np.arange(inputs.start, inputs.stop, dtype=np.int32), PER_INPUT)
    quantised = {s: quantise(r, s) for s, r in rows.items()} if dtype == "int8" else {}
    return Written(
        {s: quantised[s][0] if quantised else encode_rows(r, dtype, s) for s, r in rows.items()},
        {
            "input": number,
            "y": (np.arange(at.start, at.stop) % PER_INPUT).astype(np.int32),
            "x": number * 0,
            "valid": ~np.isin(number, BROKEN),
        },
        [str(i) for i in inputs],
        {i: "broken" for i in BROKEN if i in inputs},
        {s: scale for s, (_, scale) in quantised.items()},
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Store]:
    """A store of each kind."""
    home = tmp_path_factory.mktemp("home")
    kinds = {"float32": {}, "bfloat16": {"dtype": "bfloat16"}, "int8": {"dtype": "int8"}}
    kinds |= {"float16": {"dtype": "float16"}, "group": {"elements": 3}}
    kinds |= {"group int8": {"elements": 3, "dtype": "int8"}}
    return {kind: open_store(write(home / kind, **how)) for kind, how in kinds.items()}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asked:
    """The arguments of a stream."""

    batch: int
    seed: int
    window: int
    ranks: int
    part: str
    held_out: float
    from_y: int

    def where(self, store: Store) -> np.ndarray:
        """A selection of rows by a column."""
        mask: np.ndarray = store.column("y") >= self.from_y
        return mask

    def stream(self, store: Store, site: str, rank: int, epochs: int | None = None):  # type: ignore[no-untyped-def]
        """The stream itself."""
        return store.batches(
            site,
            self.batch,
            seed=self.seed,
            window=self.window,
            ranks=self.ranks,
            rank=rank,
            part=self.part,
            held_out=self.held_out,
            where=self.where(store),
            epochs=epochs,
        )

    def wanted(self, store: Store) -> np.ndarray:
        """The row numbers in an epoch, in order."""
        aside = order.held_out(store.column("input"), self.held_out)
        part = {"train": ~aside, "held_out": aside, "all": aside | True}[self.part]
        return np.flatnonzero(store.column("valid") & part & self.where(store))


ASKED = st.builds(
    Asked,
    batch=st.integers(1, 70),
    seed=st.integers(0, 5),
    window=st.sampled_from([1, 2, 5, 100]),
    ranks=st.integers(1, 4),
    part=st.sampled_from(["train", "held_out", "all"]),
    held_out=st.just(0.4),
    from_y=st.integers(0, 4),
)
KINDS = st.sampled_from(["float32", "float16", "bfloat16", "int8", "group", "group int8"])


@cache
def whole(store: Store, site: str) -> np.ndarray:
    """All rows of a site; NaN for unreadable inputs."""
    return store.read(site, slice(0, store.rows))


def reference(store: Store, site: str, asked: Asked, rank: int) -> Iterator[np.ndarray]:
    """A plain implementation of batches.

    The chunks with wanted rows are permuted by (seed, epoch) and dealt in turn. The rows of a
    window, in ascending order, are permuted by (seed, epoch, number of the window, rank).
    """
    wanted, waiting, epoch = asked.wanted(store), np.empty(0, np.int64), 0
    chunk_of = wanted // store.chunk_rows
    chunks = np.unique(chunk_of)
    while True:
        mine = chunks[order.permutation(len(chunks), asked.seed, epoch)][rank :: asked.ranks]
        for number, at in enumerate(range(0, len(mine), asked.window)):
            rows = wanted[np.isin(chunk_of, mine[at : at + asked.window])]
            shuffled = order.permutation(len(rows), asked.seed, epoch, number, rank)
            waiting = np.concatenate([waiting, rows[shuffled]])
        epoch += 1
        while len(waiting) >= asked.batch:
            yield whole(store, site)[waiting[: asked.batch]]
            waiting = waiting[asked.batch :]


@settings(max_examples=8)
@given(asked=ASKED, kind=KINDS, data=st.data())
def test_batches_are_the_reference_s(
    stores: Mapping[str, Store], asked: Asked, kind: str, data: st.DataObject
) -> None:
    store, rank = stores[kind], data.draw(st.integers(0, asked.ranks - 1))
    ours = asked.stream(store, "far", rank)
    for got, expected in islice(
        zip(ours, reference(store, "far", asked, rank), strict=False), 3 + 600 // asked.batch
    ):
        assert np.array_equal(got.numpy(), expected)
    ours.close()


@given(asked=ASKED)
def test_ranks_share_an_epoch_without_a_rest(stores: Mapping[str, Store], asked: Asked) -> None:
    """Every valid row exactly once, over all ranks."""
    store = stores["float32"]
    seen = [
        batch[:, 0]
        for rank in range(asked.ranks)
        for batch in asked.stream(store, "near", rank, epochs=1)
    ]
    assert np.array_equal(np.sort(torch.cat(seen).numpy()), asked.wanted(store))


@settings(max_examples=8)
@given(asked=ASKED, before=st.integers(0, 20), data=st.data())
def test_any_state_of_any_rank_is_gone_on_from(
    stores: Mapping[str, Store], asked: Asked, before: int, data: st.DataObject
) -> None:
    store, rank = stores["float16"], data.draw(st.integers(0, asked.ranks - 1))
    whole, other = (asked.stream(store, "near", rank) for _ in range(2))
    for _ in range(before):
        next(whole)
    if data.draw(st.booleans()):
        next(other)  # overwrites the memory of the first batch
    other.restore(whole.state())
    for _ in range(6):
        assert torch.equal(next(whole), next(other))
    whole.close(), other.close()


@given(asked=ASKED, kind=st.sampled_from(["float32", "group"]))
def test_sites_come_aligned_row_by_row(
    stores: Mapping[str, Store], asked: Asked, kind: str
) -> None:
    store = stores[kind]
    stream = store.batches(["far", "near"], asked.batch, window=asked.window)
    for both in islice(stream, 20):
        rows = both["near"].reshape(len(both["near"]), -1)[:, 0].long().numpy()
        for site, batch in both.items():
            assert np.array_equal(batch.numpy(), whole(store, site)[rows])
    stream.close()  # under beartype its threads draw random numbers, which hypothesis forbids


@pytest.mark.parametrize("kind", ["group", "group int8"])
def test_rows_of_a_group(stores: Mapping[str, Store], kind: str) -> None:
    """They have shape [R, G, D] for Tendril and for plain zarr."""
    store = stores[kind]
    shape = store.arrays.layout
    expected, valid = rows_of(shape, "far"), store.column("valid")
    plain = zarr.open(store.path, mode="r")
    array = plain["activations/far"]
    assert array.shape == (INPUTS * PER_INPUT, 3, 4)
    assert array.metadata.dimension_names == ("row", "element", "channel")
    assert plain["statistics/far/mean"].shape == (3, 4)
    rows = array[:].astype(np.float32)
    if kind == "group int8":
        rows = rows * plain["scales/far"][:][:, None, None]
    assert np.array_equal(store.read("far", slice(0, store.rows))[valid], rows[valid])
    off = np.abs(rows - expected)[valid]
    largest = np.abs(expected).max(axis=(1, 2))[valid] / 127 if kind == "group int8" else 0.0
    assert (off <= np.reshape(largest, (-1, 1, 1)) * 0.5001).all()
    batch = next(store.batches("far", 7))
    assert batch.shape == (7, 3, 4)
    kept = rows[valid].astype(np.float64)
    np.testing.assert_allclose(plain["statistics/far/mean"][:], kept.mean(0), rtol=1e-9)
    np.testing.assert_allclose(plain["statistics/far/variance"][:], kept.var(0), rtol=1e-9)


def test_more_ranks_than_chunks_with_rows(stores: Mapping[str, Store]) -> None:
    store = stores["float32"]
    where = store.column("input") < 3  # two chunks; the first input is unreadable
    rows = [
        b
        for r in (0, 1)
        for b in store.batches("near", 3, where=where, rank=r, ranks=2, part="all", epochs=1)
    ]
    assert sorted(torch.cat(rows)[:, 0].tolist()) == list(range(5, 15))
    with pytest.raises(ConfigError, match="lie in 2 chunks"):
        store.batches("near", 3, where=where, rank=0, ranks=3, part="all")
