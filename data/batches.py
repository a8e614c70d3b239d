"""Shuffled batches: windows of chunks, read ahead by threads, in an order that is arithmetic."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, cast, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, Shaped
from typing_extensions import TypeVar

from . import order
from .arrays import FETCHES, StoredArrays

TORCH = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int8": torch.int8,
}

Batch = Float[torch.Tensor, " n *d"]
Given = TypeVar("Given", default=torch.Tensor)  # a Batch, or a dict of them by site
Chunks = Int64[np.ndarray, " c"]


@dataclass(frozen=True)
class _Group:
    """The chunks that are mixed at a time: which part of an epoch they are."""

    epoch: int
    number: int
    begin: int  # in rows of the epoch, of this rank
    rows: int
    chunks: Chunks  # in ascending order


@dataclass(frozen=True)
class _Window:
    """The rows of a group in memory, as stored, and the order they come in."""

    group: _Group
    rows: Mapping[str, Shaped[torch.Tensor, " r *d"]]
    multipliers: Mapping[str, Float32[torch.Tensor, " r"]]
    order: Int[torch.Tensor, " r"]
    memory: Mapping[str, Shaped[torch.Tensor, " most *d"]]  # what the rows lie in

    def holds(self, epoch: int, offset: int) -> bool:
        """Whether a row of an epoch is in here."""
        group = self.group
        return group.epoch == epoch and group.begin <= offset < group.begin + group.rows


@final
class Batches(Iterator[Given], Generic[Given]):
    """An endless (or `epochs` long) stream of batches whose order is a pure function of
    (seed, epoch, rank): which chunks share a window, and the order of the rows in it.

    The chunks of an epoch are permuted and dealt to the ranks in turn; a rank mixes `window`
    of its chunks at a time, and reads the next ones meanwhile. Where one window is all there
    is, it is read once.
    """

    def __init__(
        self,
        arrays: StoredArrays,
        sites: Sequence[str],
        batch_size: int,
        wanted: Bool[np.ndarray, " r"],
        *,
        single: bool,
        seed: int,
        device: torch.device,
        epochs: int | None,
        window: int,
        rank: int,
        ranks: int,
        multipliers: Mapping[str, Float32[np.ndarray, " r"] | None],
    ) -> None:
        self._arrays, self._sites, self._single = arrays, tuple(sites), single
        self._batch_size, self._seed, self._device = batch_size, seed, device
        self._epochs, self._window, self._rank, self._ranks = epochs, window, rank, ranks
        self._multipliers = {s: m for s, m in multipliers.items() if m is not None}
        self._wanted = wanted  # a byte a row is all that grows with the store
        starts = [arrays.chunk_range(chunk).start for chunk in range(arrays.chunks)]
        self._counts = np.add.reduceat(wanted, starts, dtype=np.int64)
        self._filled = np.flatnonzero(self._counts)  # chunks with nothing to read are not dealt
        assert len(self._filled) >= ranks, "every rank has rows in every epoch"
        self.rows_per_epoch = int(self._counts.sum())  # of all ranks together
        self._epoch = self._offset = 0
        self._dealt: tuple[int, list[_Group]] | None = None
        self._current: _Window | None = None
        self._ahead: Future[_Window] | None = None

        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        readers = FETCHES if arrays.folder.distant else os.cpu_count() or 1
        self._decoders = ThreadPoolExecutor(readers, thread_name_prefix="decode")

    def state(self) -> dict[str, int]:
        """All that is needed to go on from here."""
        return {"epoch": self._epoch, "offset": self._offset}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a state, of this stream or of another one of the same arguments."""
        self._epoch, self._offset = state["epoch"], state["offset"]

    def close(self) -> None:
        """Let go of threads and memory; the stream ends here."""
        self._epochs = self._epoch
        self._reader.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        self._current = self._ahead = None

    def __next__(self) -> Given:
        parts: list[dict[str, Batch]] = []
        missing = self._batch_size
        while missing:
            self._skip_to_next_epoch()
            if self._epochs is not None and self._epoch >= self._epochs:
                break
            window = self._window_at(self._epoch, self._offset)
            first = self._offset - window.group.begin
            chosen = window.order[first : first + missing]
            parts.append({site: self._take(window, site, chosen) for site in self._sites})
            missing -= len(chosen)
            self._offset += len(chosen)
        if not parts:
            self.close()
            raise StopIteration
        batch = {
            site: parts[0][site] if len(parts) == 1 else torch.cat([p[site] for p in parts])
            for site in self._sites
        }
        return cast(Given, batch[self._sites[0]] if self._single else batch)

    def _take(self, window: _Window, site: str, chosen: Int[torch.Tensor, " n"]) -> Batch:
        rows = window.rows[site].index_select(0, chosen).float()
        if site in window.multipliers:
            factor = window.multipliers[site].index_select(0, chosen)
            rows *= factor.view(-1, *(1,) * (rows.ndim - 1))
        return rows

    def _skip_to_next_epoch(self) -> None:
        groups = self._groups(self._epoch)
        if self._offset >= groups[-1].begin + groups[-1].rows:
            self._epoch, self._offset = self._epoch + 1, 0

    def _groups(self, epoch: int) -> list[_Group]:
        """What this rank reads in an epoch, window by window."""
        if self._dealt is None or self._dealt[0] != epoch:
            order_C = self._filled[order.permutation(len(self._filled), self._seed, epoch)]
            mine = order_C[self._rank :: self._ranks]
            groups, begin = [], 0
            for number, at in enumerate(range(0, len(mine), self._window)):
                chunks = np.sort(mine[at : at + self._window])
                rows = int(self._counts[chunks].sum())
                groups.append(_Group(epoch, number, begin, rows, chunks))
                begin += rows
            self._dealt = (epoch, groups)
        return self._dealt[1]

    def _window_at(self, epoch: int, offset: int) -> _Window:
        """The window that holds a row of an epoch; the one after it is read meanwhile."""
        if self._current is None or not self._current.holds(epoch, offset):
            ready = self._ahead.result() if self._ahead else None
            last, self._current = self._current, None
            if ready is None or not ready.holds(epoch, offset):
                group = next(g for g in self._groups(epoch) if offset < g.begin + g.rows)
                ready = self._load(group, ready or last)
                last = None
            self._current = ready
            self._ahead = self._reader.submit(self._load, self._after(ready.group), last)
        return self._current

    def _after(self, group: _Group) -> _Group:
        later = self._groups(group.epoch)[group.number + 1 :]
        return later[0] if later else self._groups(group.epoch + 1)[0]

    def _load(self, group: _Group, old: _Window | None) -> _Window:
        """Read a window; into the memory of an old one, where that is no longer used."""
        shuffled = torch.from_numpy(
            order.permutation(group.rows, self._seed, group.epoch, group.number, self._rank)
        ).to(self._device)
        current = self._current
        for there in (current, old):
            if there is not None and np.array_equal(there.group.chunks, group.chunks):
                return replace(there, group=group, order=shuffled)
        # one chunk may come twice in a row: then its memory is still in use
        free = old is not None and (current is None or old.memory is not current.memory)
        memory = old.memory if old is not None and free else self._memory()
        rows = {site: self._read(site, group, memory[site]) for site in self._sites}
        multipliers = {}
        if self._multipliers:
            numbers = np.concatenate([self._wanted_of(int(c)) for c in group.chunks])
            for site, factor in self._multipliers.items():
                multipliers[site] = torch.from_numpy(factor[numbers]).to(self._device)
        return _Window(group, rows, multipliers, shuffled, memory)

    def _memory(self) -> dict[str, Shaped[torch.Tensor, " most *d"]]:
        """Room for the rows of any window; fresh pages cost as much as filling them."""
        layout, on_gpu = self._arrays.layout, self._device.type == "cuda"
        most = int(np.sort(self._counts)[-self._window :].sum())
        dtype = TORCH[self._arrays.dtype]
        return {
            site: torch.empty((most, *layout.row_shape(site)), dtype=dtype, pin_memory=on_gpu)
            for site in self._sites
        }

    def _wanted_of(self, chunk: int) -> Int64[np.ndarray, " r"]:
        """The numbers of the wanted rows of a chunk."""
        rows = self._arrays.chunk_range(chunk)
        return rows.start + np.flatnonzero(self._wanted[rows.start : rows.stop])

    def _read(
        self, site: str, group: _Group, memory: Shaped[torch.Tensor, " most *d"]
    ) -> Shaped[torch.Tensor, " r *d"]:
        """The wanted rows of a group's chunks, as stored, on the device."""
        rows = memory[: group.rows]
        stored = _as_stored(rows)
        ends = np.cumsum(self._counts[group.chunks])
        places = zip(group.chunks, ends - self._counts[group.chunks], ends, strict=True)
        list(self._decoders.map(lambda p: self._fill(site, int(p[0]), stored[p[1] : p[2]]), places))
        if self._device.type != "cuda":
            return rows
        beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(beside):  # while the main stream computes
            there = rows.to(self._device, non_blocking=True)
        beside.synchronize()
        return there

    def _fill(self, site: str, chunk: int, out: Shaped[np.ndarray, " r *d"]) -> None:
        wanted = self._wanted_of(chunk) - self._arrays.chunk_range(chunk).start
        decoded = self._arrays.read_chunk(site, chunk, out)
        if len(wanted) < len(decoded):
            np.take(decoded, wanted, axis=0, out=out)
        elif not np.shares_memory(decoded, out):
            out[...] = decoded


def _as_stored(rows: Shaped[torch.Tensor, " r *d"]) -> Shaped[np.ndarray, " r *d"]:
    """The same memory as numpy sees it: bfloat16 as its bits."""
    if rows.dtype == torch.bfloat16:
        return rows.view(torch.int16).numpy().view(np.uint16)
    whole: np.ndarray = rows.numpy()
    return whole
