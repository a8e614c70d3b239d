"""Shuffled batches: rows of windows gathered ahead, in an order that is arithmetic."""

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
from .windows import Window, Windows, as_stored

AHEAD = 3  # batches gathered, or on their way to it, before they are asked for
GATHERERS = 2  # each on one core: so many rows come out of the cache or the memory at once
PIECE = 2**19  # bytes gathered, and turned into float32 while a core still has them at hand

Batch = Float[torch.Tensor, " n *d"]
Given = TypeVar("Given", default=torch.Tensor)  # a Batch, or a dict of them by site


@dataclass(frozen=True)
class _Coming:
    """A batch that is being gathered, and where the stream stands once it is given away."""

    rows: Mapping[str, Batch]
    parts: Sequence[Future[None]]
    epoch: int
    offset: int


@final
class Batches(Iterator[Given], Generic[Given]):
    """An endless (or `epochs` long) stream of batches whose order is a pure function of
    (seed, epoch, rank): which chunks share a window (see Windows), and the order of the rows
    in it.

    On a CPU the next batches are gathered by threads while the last one is used; on a GPU
    gathering is a matter of microseconds, and happens when it is asked for.
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
        self._sites, self._single, self._device = tuple(sites), single, device
        self._batch_size, self._epochs = batch_size, epochs
        self._windows = Windows(
            arrays,
            sites,
            wanted,
            seed=seed,
            device=device,
            window=window,
            rank=rank,
            ranks=ranks,
            multipliers=multipliers,
        )
        self.rows_per_epoch = self._windows.rows_per_epoch  # of all ranks together
        self._epoch = self._offset = 0
        self._coming: deque[_Coming] = deque()
        shapes = {site: (batch_size, *arrays.layout.row_shape(site)) for site in self._sites}
        self._lent = {site: LentMemory(shape, "float32") for site, shape in shapes.items()}
        self._gatherer = ThreadPoolExecutor(GATHERERS, "gather", initializer=compute_alone)

    def state(self) -> dict[str, int]:
        """All that is needed to go on from here."""
        return {"epoch": self._epoch, "offset": self._offset}

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a state, of this stream or of another one of the same arguments."""
        self._coming.clear()
        self._epoch, self._offset = state["epoch"], state["offset"]

    def close(self) -> None:
        """Let go of threads and memory; the stream ends here."""
        self._epochs = self._epoch
        self._coming.clear()
        self._windows.close()  # first: it may wait for what is being gathered
        self._gatherer.shutdown()

    def __next__(self) -> Given:
        while not self._coming or (len(self._coming) < AHEAD and self._at_hand()):
            coming = self._plan()
            if coming is None:
                break
            self._coming.append(coming)
        if not self._coming:
            self.close()
            raise StopIteration
        given = self._coming.popleft()
        for part in given.parts:
            part.result()
        self._epoch, self._offset = given.epoch, given.offset
        return cast(Given, given.rows[self._sites[0]] if self._single else dict(given.rows))

    def _at_hand(self) -> bool:
        """Whether the next batch can be planned now, so that nobody waits who need not."""
        return self._device.type != "cuda" and self._windows.at_hand(*self._stands())

    def _stands(self) -> tuple[int, int]:
        """Epoch and offset of the row after all that is planned."""
        last = self._coming[-1] if self._coming else None
        epoch, offset = (last.epoch, last.offset) if last else (self._epoch, self._offset)
        return self._within(epoch, offset)

    def _within(self, epoch: int, offset: int) -> tuple[int, int]:
        """The end of an epoch is the beginning of the next."""
        return (epoch, offset) if offset < self._windows.groups(epoch)[-1].end else (epoch + 1, 0)

    def _plan(self) -> _Coming | None:
        """Have the next batch gathered; None where the stream ends."""
        rows = {site: self._room(site) for site in self._sites}
        parts: list[Future[None]] = []
        epoch, offset = self._stands()
        taken = 0
        while taken < self._batch_size:
            epoch, offset = self._within(epoch, offset)
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
        return _Coming({s: whole[:taken] for s, whole in rows.items()}, parts, epoch, offset)

    def _room(self, site: str) -> Batch:
        """A tensor to be filled, of float32 whatever is stored."""
        if self._device.type == "cuda":
            return torch.empty(self._lent[site].shape, device=self._device)
        return torch.from_numpy(self._lent[site].array())

    def _gather(
        self, window: Window, site: str, chosen: Int[torch.Tensor, " n"], out: Batch
    ) -> Future[None]:
        """Rows of a window by number, into `out`."""
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
    """out_i = factor_j rows_j, j = chosen_i, in float32; with no factor out_i = rows_j."""
    out.copy_(rows.index_select(0, chosen))
    if factor is not None:
        out *= factor.index_select(0, chosen).view(-1, *(1,) * (out.ndim - 1))


def gather(
    rows: Shaped[torch.Tensor, " r *d"],
    chosen: Int[torch.Tensor, " n"],
    factor: Float32[torch.Tensor, " r"] | None,
    out: Batch,
) -> None:
    """The same on a CPU, in half the time: by pieces, and by numpy, whose `take` needs a sixth
    of torch's time for wide rows."""
    step = max(1, PIECE // rows[0].nbytes)
    piece = torch.empty_like(rows[:step])
    stored, taken, numbers = as_stored(rows), as_stored(piece), chosen.numpy()
    for start in range(0, len(numbers), step):
        at = numbers[start : start + step]
        np.take(stored, at, axis=0, out=taken[: len(at)], mode="clip")  # "raise" takes a copy
        into = out[start : start + len(at)]
        into.copy_(piece[: len(at)])
        if factor is not None:
            into *= torch.from_numpy(factor.numpy()[at]).view(-1, *(1,) * (out.ndim - 1))
