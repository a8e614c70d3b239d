"""Shuffled batches, gathered ahead from shuffle windows in a reproducible order."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, cast, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped
from typing_extensions import TypeVar

from ..device import compute_alone
from .buffers import LentMemory
from .chunks import StoredArrays
from .windows import ShuffleWindow, ShuffleWindows, as_stored

AHEAD = 3  # batches gathered in advance
GATHERERS = 2  # threads that gather, each on one core
PIECE = 2**19  # bytes gathered at a time and converted to float32 while still in a core's cache

Batch = Float[torch.Tensor, " n *d"]
Given = TypeVar("Given", default=torch.Tensor)  # a Batch, or a dict of them by site


@dataclass(frozen=True)
class _Planned:
    """A batch that is being gathered, and the position of the stream after it."""

    rows: Mapping[str, Batch]
    parts: Sequence[Future[None]]
    epoch: int
    offset: int


@final
class Batches(Iterator[Given], Generic[Given]):
    """A stream of batches, endless or `epochs` long. `Store.batches` makes it.

    The order is a pure function of (seed, epoch, rank): which chunks share a window (see
    `ShuffleWindows`), and the order of the rows within each window. On a CPU, threads gather the
    next batches while the current one is used. On a GPU gathering takes microseconds and happens
    on demand.
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
        together: int = 1,
    ) -> None:
        self._sites, self._single, self._device = tuple(sites), single, device
        self._batch_size, self._epochs = batch_size, epochs
        self._windows = ShuffleWindows(
            arrays,
            sites,
            wanted,
            seed=seed,
            device=device,
            window=window,
            rank=rank,
            ranks=ranks,
            multipliers=multipliers,
            together=together,
        )
        self.rows_per_epoch = self._windows.rows_per_epoch  # of all ranks together
        self._epoch = self._offset = 0
        self._planned: deque[_Planned] = deque()
        shapes = {site: (batch_size, *arrays.layout.row_shape(site)) for site in self._sites}
        self._lent = {site: LentMemory(shape, "float32") for site, shape in shapes.items()}
        self._gatherer = ThreadPoolExecutor(GATHERERS, "gather", initializer=compute_alone)

    def state(self) -> dict[str, int]:
        """The position of the stream, for `restore`."""
        return {"epoch": self._epoch, "offset": self._offset}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continue from a state of this stream, or of another one with the same arguments."""
        self._planned.clear()
        self._epoch, self._offset = state["epoch"], state["offset"]

    def close(self) -> None:
        """Release threads and memory; the stream ends here."""
        self._epochs = self._epoch
        self._planned.clear()
        self._windows.close()  # first: it may wait for batches that are being gathered
        self._gatherer.shutdown()

    def __next__(self) -> Given:
        while not self._planned or (len(self._planned) < AHEAD and self._at_hand()):
            planned = self._plan()
            if planned is None:
                break
            self._planned.append(planned)
        if not self._planned:
            self.close()
            raise StopIteration
        batch = self._planned.popleft()
        for part in batch.parts:
            part.result()
        self._epoch, self._offset = batch.epoch, batch.offset
        return cast(Given, batch.rows[self._sites[0]] if self._single else dict(batch.rows))

    def _at_hand(self) -> bool:
        """True if the next batch can be planned without waiting for a window."""
        return self._device.type != "cuda" and self._windows.at_hand(*self._position())

    def _position(self) -> tuple[int, int]:
        """Epoch and offset of the first row that is not yet planned."""
        last = self._planned[-1] if self._planned else None
        epoch, offset = (last.epoch, last.offset) if last else (self._epoch, self._offset)
        return self._normalised(epoch, offset)

    def _normalised(self, epoch: int, offset: int) -> tuple[int, int]:
        """The position itself; for the end of an epoch the start of the next one."""
        return (epoch, offset) if offset < self._windows.groups(epoch)[-1].end else (epoch + 1, 0)

    def _plan(self) -> _Planned | None:
        """Start gathering the next batch; None at the end of the stream."""
        rows = {site: self._output(site) for site in self._sites}
        parts: list[Future[None]] = []
        epoch, offset = self._position()
        taken = 0
        while taken < self._batch_size:
            epoch, offset = self._normalised(epoch, offset)
            if self._epochs is not None and epoch >= self._epochs:
                break
            window = self._windows.at(epoch, offset)
            first = offset - window.group.begin
            chosen = window.order[first : first + self._batch_size - taken]
            for site in self._sites:
                out = rows[site][taken : taken + len(chosen)]
                parts.append(self._gather(window, site, chosen, out))
            taken, offset = taken + len(chosen), offset + len(chosen)
        if not taken:
            return None
        return _Planned({s: whole[:taken] for s, whole in rows.items()}, parts, epoch, offset)

    def _output(self, site: str) -> Batch:
        """An uninitialised float32 tensor for a batch."""
        if self._device.type == "cuda":
            return torch.empty(self._lent[site].shape, device=self._device)
        return torch.from_numpy(self._lent[site].array())

    def _gather(
        self, window: ShuffleWindow, site: str, chosen: Int[torch.Tensor, " n"], out: Batch
    ) -> Future[None]:
        """Start gathering rows of a window by number into `out`."""
        factor = window.multipliers.get(site)
        if self._device.type == "cuda":
            done: Future[None] = Future()
            gather_plainly(window.rows[site], chosen, factor, out)
            done.set_result(None)
            return done
        part = self._gatherer.submit(gather, window.rows[site], chosen, factor, out)
        window.readers[:] = [r for r in window.readers if not r.done()] + [part]
        return part


def gather_plainly(
    rows: Shaped[torch.Tensor, " r *d"],
    chosen: Int[torch.Tensor, " n"],
    factor: Float32[torch.Tensor, " r"] | None,
    out: Batch,
) -> None:
    """out_i = factor_j rows_j with j = chosen_i, in float32; without a factor out_i = rows_j."""
    out.copy_(rows.index_select(0, chosen))
    if factor is not None:
        out *= factor.index_select(0, chosen).view(-1, *(1,) * (out.ndim - 1))


def gather(
    rows: Shaped[torch.Tensor, " r *d"],
    chosen: Int[torch.Tensor, " n"],
    factor: Float32[torch.Tensor, " r"] | None,
    out: Batch,
) -> None:
    """`gather_plainly` on a CPU, in half the time.

    It works in pieces that stay in the cache, and uses numpy's `take`, which needs a sixth of
    torch's time for wide rows.
    """
    step = max(1, PIECE // rows[0].nbytes)
    piece = torch.empty_like(rows[:step])
    stored, taken, numbers = as_stored(rows), as_stored(piece), chosen.numpy()
    for start in range(0, len(numbers), step):
        at = numbers[start : start + step]
        np.take(stored, at, axis=0, out=taken[: len(at)], mode="clip")  # mode "raise" copies
        into = out[start : start + len(at)]
        into.copy_(piece[: len(at)])
        if factor is not None:
            into *= torch.from_numpy(factor.numpy()[at]).view(-1, *(1,) * (out.ndim - 1))
