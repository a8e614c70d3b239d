"""Shuffle windows: the chunks whose rows are shuffled together, read ahead by threads."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int64, Shaped

from .. import order
from .buffers import uninitialised
from .chunks import FETCHES, StoredArrays

TORCH = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int8": torch.int8,
}


@dataclass(frozen=True)
class Group:
    """The chunks of one shuffle window, and their place in an epoch."""

    epoch: int
    number: int
    begin: int  # the first row, counted over the epoch's rows of this rank
    rows: int
    chunks: Int64[np.ndarray, " c"]  # in ascending order

    @property
    def end(self) -> int:
        """The first row of the next group."""
        return self.begin + self.rows


@dataclass(frozen=True)
class ShuffleWindow:
    """The stored rows of a group in memory, and the order in which to yield them."""

    group: Group
    rows: Mapping[str, Shaped[torch.Tensor, " r *d"]]
    multipliers: Mapping[str, Float32[torch.Tensor, " r"]]
    order: Int[torch.Tensor, " r"]
    memory: Mapping[str, Shaped[torch.Tensor, " most *d"]]  # the buffers that hold the rows
    readers: list[Future[None]] = field(default_factory=list)  # done before memory is reused

    def holds(self, epoch: int, offset: int) -> bool:
        """True if row `offset` of an epoch lies in this window."""
        group = self.group
        return group.epoch == epoch and group.begin <= offset < group.end


@final
class ShuffleWindows:
    """The windows of an endless stream; their order is a pure function of (seed, epoch, rank).

    The blocks of an epoch, each of `together` chunks in a row (one by default), are permuted and
    dealt to the ranks in turn. A rank shuffles `window` of its blocks together and reads the next
    window meanwhile. If one window holds all chunks, it is read only once.
    """

    def __init__(
        self,
        arrays: StoredArrays,
        sites: Sequence[str],
        wanted: Bool[np.ndarray, " r"],
        *,
        seed: int,
        device: torch.device,
        window: int,
        rank: int,
        ranks: int,
        multipliers: Mapping[str, Float32[np.ndarray, " r"] | None],
        together: int = 1,
    ) -> None:
        self._together = together
        self._arrays, self._sites = arrays, tuple(sites)
        self._seed, self._device = seed, device
        self._window, self._rank, self._ranks = window, rank, ranks
        self._multipliers = {s: m for s, m in multipliers.items() if m is not None}
        self._wanted = wanted  # one byte per row: the only memory that grows with the store
        starts = [arrays.chunk_range(chunk).start for chunk in range(arrays.chunks)]
        self._counts = np.add.reduceat(wanted, starts, dtype=np.int64)
        firsts = np.arange(0, len(self._counts), together)
        self._blocks = np.add.reduceat(self._counts, firsts)
        self._filled = np.flatnonzero(self._blocks)  # blocks without wanted rows are skipped
        assert len(self._filled) >= ranks, "every rank needs rows in every epoch"
        self.rows_per_epoch = int(self._counts.sum())  # of all ranks together
        self._dealt: tuple[int, list[Group]] | None = None
        self._current: ShuffleWindow | None = None
        self._ahead: Future[ShuffleWindow] | None = None

        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        threads = FETCHES if arrays.folder.distant else os.cpu_count() or 1
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def close(self) -> None:
        """Release threads and memory."""
        self._reader.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        self._current = self._ahead = None

    def groups(self, epoch: int) -> list[Group]:
        """The groups of chunks that this rank reads in an epoch, in order."""
        if self._dealt is None or self._dealt[0] != epoch:
            order_C = self._filled[order.permutation(len(self._filled), self._seed, epoch)]
            mine = order_C[self._rank :: self._ranks]
            groups, begin = [], 0
            for number, at in enumerate(range(0, len(mine), self._window)):
                chunks = self._chunks_of(np.sort(mine[at : at + self._window]))
                rows = int(self._counts[chunks].sum())
                groups.append(Group(epoch, number, begin, rows, chunks))
                begin += rows
            self._dealt = (epoch, groups)
        return self._dealt[1]

    def _chunks_of(self, blocks: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " c"]:
        """The chunks of some blocks that hold wanted rows."""
        chunks = (blocks[:, None] * self._together + np.arange(self._together)).ravel()
        chunks = chunks[chunks < len(self._counts)]
        return chunks[self._counts[chunks] > 0]

    def at_hand(self, epoch: int, offset: int) -> bool:
        """True if `at` would return without waiting and without an error."""
        if self._current is not None and self._current.holds(epoch, offset):
            return True
        return self._ahead is not None and self._ahead.done() and not self._ahead.exception()

    def at(self, epoch: int, offset: int) -> ShuffleWindow:
        """The window that holds row `offset` of an epoch; starts reading the window after it.

        The next window reuses the memory of the previous one once all its `readers` are done.
        """
        if self._current is None or not self._current.holds(epoch, offset):
            ready = self._ahead.result() if self._ahead else None
            last, self._current = self._current, None
            if ready is None or not ready.holds(epoch, offset):
                group = next(g for g in self.groups(epoch) if offset < g.end)
                ready = self._load(group, ready or last)
                last = None
            self._current = ready
            self._ahead = self._reader.submit(self._load, self._after(ready.group), last)
        return self._current

    def _after(self, group: Group) -> Group:
        later = self.groups(group.epoch)[group.number + 1 :]
        return later[0] if later else self.groups(group.epoch + 1)[0]

    def _load(self, group: Group, old: ShuffleWindow | None) -> ShuffleWindow:
        """Read a window, into the memory of an old one if that is no longer used."""
        shuffled = torch.from_numpy(
            order.permutation(group.rows, self._seed, group.epoch, group.number, self._rank)
        ).to(self._device)
        current = self._current
        for loaded in (current, old):
            if loaded is not None and np.array_equal(loaded.group.chunks, group.chunks):
                return replace(loaded, group=group, order=shuffled)
        # the same chunks may come twice in a row; then their memory is still in use
        free = old is not None and (current is None or old.memory is not current.memory)
        memory = old.memory if old is not None and free else self._memory()
        if old is not None:
            wait(old.readers)
        rows = {site: self._read(site, group, memory[site]) for site in self._sites}
        multipliers = {}
        if self._multipliers:
            numbers = np.concatenate([self._wanted_of(int(c)) for c in group.chunks])
            for site, factor in self._multipliers.items():
                multipliers[site] = torch.from_numpy(factor[numbers]).to(self._device)
        return ShuffleWindow(group, rows, multipliers, shuffled, memory)

    def _memory(self) -> dict[str, Shaped[torch.Tensor, " most *d"]]:
        """Buffers large enough for any window. They are reused: fresh pages cost as much time as
        filling them."""
        layout = self._arrays.layout
        most = int(np.sort(self._blocks)[-self._window :].sum())
        shapes = {site: (most, *layout.row_shape(site)) for site in self._sites}
        dtype = self._arrays.dtype
        if self._device.type == "cuda":
            kind = TORCH[dtype]
            return {
                s: torch.empty(shape, dtype=kind, pin_memory=True) for s, shape in shapes.items()
            }
        # bfloat16 is read as bits, through int16: torch hardly supports uint16
        stored = "int16" if dtype == "bfloat16" else dtype
        return {
            site: torch.from_numpy(uninitialised(shape, stored)).view(TORCH[dtype])
            for site, shape in shapes.items()
        }

    def _wanted_of(self, chunk: int) -> Int64[np.ndarray, " r"]:
        """The row numbers of the wanted rows of a chunk."""
        rows = self._arrays.chunk_range(chunk)
        return rows.start + np.flatnonzero(self._wanted[rows.start : rows.stop])

    def _read(
        self, site: str, group: Group, memory: Shaped[torch.Tensor, " most *d"]
    ) -> Shaped[torch.Tensor, " r *d"]:
        """The wanted rows of a group's chunks in their stored dtype, on the device."""
        rows = memory[: group.rows]
        stored = as_stored(rows)
        ends = np.cumsum(self._counts[group.chunks])
        places = zip(group.chunks, ends - self._counts[group.chunks], ends, strict=True)
        list(self._decoders.map(lambda p: self._fill(site, int(p[0]), stored[p[1] : p[2]]), places))
        if self._device.type != "cuda":
            return rows
        copying = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(copying):  # the main stream computes meanwhile
            on_device = rows.to(self._device, non_blocking=True)
        copying.synchronize()
        return on_device

    def _fill(self, site: str, chunk: int, out: Shaped[np.ndarray, " r *d"]) -> None:
        wanted = self._wanted_of(chunk) - self._arrays.chunk_range(chunk).start
        decoded = self._arrays.read_chunk(site, chunk, out)
        if len(wanted) < len(decoded):
            np.take(decoded, wanted, axis=0, out=out)
        elif not np.shares_memory(decoded, out):
            out[...] = decoded


def as_stored(rows: Shaped[torch.Tensor, " r *d"]) -> Shaped[np.ndarray, " r *d"]:
    """A numpy view of the same memory; bfloat16 as bits (uint16)."""
    if rows.dtype == torch.bfloat16:
        return rows.view(torch.int16).numpy().view(np.uint16)
    whole: np.ndarray = rows.numpy()
    return whole
