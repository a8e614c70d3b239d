"""Windows of chunks: which rows are mixed at a time, read ahead by threads."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int64, Shaped

from .. import order
from .buffers import room
from .chunks import FETCHES, StoredArrays

TORCH = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int8": torch.int8,
}


@dataclass(frozen=True)
class Group:
    """The chunks that are mixed at a time: which part of an epoch they are."""

    epoch: int
    number: int
    begin: int  # in rows of the epoch, of this rank
    rows: int
    chunks: Int64[np.ndarray, " c"]  # in ascending order

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.begin + self.rows


@dataclass(frozen=True)
class Window:
    """The rows of a group in memory, as stored, and the order they come in."""

    group: Group
    rows: Mapping[str, Shaped[torch.Tensor, " r *d"]]
    multipliers: Mapping[str, Float32[torch.Tensor, " r"]]
    order: Int[torch.Tensor, " r"]
    memory: Mapping[str, Shaped[torch.Tensor, " most *d"]]  # what the rows lie in
    readers: list[Future[None]] = field(default_factory=list)  # of the memory, to be waited for

    def holds(self, epoch: int, offset: int) -> bool:
        """Whether a row of an epoch is in here."""
        group = self.group
        return group.epoch == epoch and group.begin <= offset < group.end


@final
class Windows:
    """The windows of an endless stream, whose order is a pure function of (seed, epoch, rank).

    The chunks of an epoch are permuted and dealt to the ranks in turn; a rank mixes `window`
    of its chunks at a time, and reads the next ones meanwhile. Where one window is all there
    is, it is read once.
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
    ) -> None:
        self._arrays, self._sites = arrays, tuple(sites)
        self._seed, self._device = seed, device
        self._window, self._rank, self._ranks = window, rank, ranks
        self._multipliers = {s: m for s, m in multipliers.items() if m is not None}
        self._wanted = wanted  # a byte a row is all that grows with the store
        starts = [arrays.chunk_range(chunk).start for chunk in range(arrays.chunks)]
        self._counts = np.add.reduceat(wanted, starts, dtype=np.int64)
        self._filled = np.flatnonzero(self._counts)  # chunks with nothing to read are not dealt
        assert len(self._filled) >= ranks, "every rank has rows in every epoch"
        self.rows_per_epoch = int(self._counts.sum())  # of all ranks together
        self._dealt: tuple[int, list[Group]] | None = None
        self._current: Window | None = None
        self._ahead: Future[Window] | None = None

        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        threads = FETCHES if arrays.folder.distant else os.cpu_count() or 1
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def close(self) -> None:
        """Let go of threads and memory."""
        self._reader.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)
        self._current = self._ahead = None

    def groups(self, epoch: int) -> list[Group]:
        """What this rank reads in an epoch, window by window."""
        if self._dealt is None or self._dealt[0] != epoch:
            order_C = self._filled[order.permutation(len(self._filled), self._seed, epoch)]
            mine = order_C[self._rank :: self._ranks]
            groups, begin = [], 0
            for number, at in enumerate(range(0, len(mine), self._window)):
                chunks = np.sort(mine[at : at + self._window])
                rows = int(self._counts[chunks].sum())
                groups.append(Group(epoch, number, begin, rows, chunks))
                begin += rows
            self._dealt = (epoch, groups)
        return self._dealt[1]

    def at_hand(self, epoch: int, offset: int) -> bool:
        """Whether `at` would return without waiting, and without an error."""
        if self._current is not None and self._current.holds(epoch, offset):
            return True
        return self._ahead is not None and self._ahead.done() and not self._ahead.exception()

    def at(self, epoch: int, offset: int) -> Window:
        """The window that holds a row of an epoch; the one after it is read meanwhile, into the
        memory of the one before it when all its `readers` are done."""
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

    def _load(self, group: Group, old: Window | None) -> Window:
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
        if old is not None:
            wait(old.readers)
        rows = {site: self._read(site, group, memory[site]) for site in self._sites}
        multipliers = {}
        if self._multipliers:
            numbers = np.concatenate([self._wanted_of(int(c)) for c in group.chunks])
            for site, factor in self._multipliers.items():
                multipliers[site] = torch.from_numpy(factor[numbers]).to(self._device)
        return Window(group, rows, multipliers, shuffled, memory)

    def _memory(self) -> dict[str, Shaped[torch.Tensor, " most *d"]]:
        """Room for the rows of any window; fresh pages cost as much as filling them."""
        layout = self._arrays.layout
        most = int(np.sort(self._counts)[-self._window :].sum())
        shapes = {site: (most, *layout.row_shape(site)) for site in self._sites}
        dtype = self._arrays.dtype
        if self._device.type == "cuda":
            kind = TORCH[dtype]
            return {
                s: torch.empty(shape, dtype=kind, pin_memory=True) for s, shape in shapes.items()
            }
        # bfloat16 is its bits; torch has no uint16 to speak of
        stored = "int16" if dtype == "bfloat16" else dtype
        return {
            site: torch.from_numpy(room(shape, stored)).view(TORCH[dtype])
            for site, shape in shapes.items()
        }

    def _wanted_of(self, chunk: int) -> Int64[np.ndarray, " r"]:
        """The numbers of the wanted rows of a chunk."""
        rows = self._arrays.chunk_range(chunk)
        return rows.start + np.flatnonzero(self._wanted[rows.start : rows.stop])

    def _read(
        self, site: str, group: Group, memory: Shaped[torch.Tensor, " most *d"]
    ) -> Shaped[torch.Tensor, " r *d"]:
        """The wanted rows of a group's chunks, as stored, on the device."""
        rows = memory[: group.rows]
        stored = as_stored(rows)
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


def as_stored(rows: Shaped[torch.Tensor, " r *d"]) -> Shaped[np.ndarray, " r *d"]:
    """The same memory as numpy sees it: bfloat16 as its bits."""
    if rows.dtype == torch.bfloat16:
        return rows.view(torch.int16).numpy().view(np.uint16)
    whole: np.ndarray = rows.numpy()
    return whole
