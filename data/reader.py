"""A complete store -> rows by number, and shuffled batches on a device."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Shaped

from . import order
from .errors import ConfigError
from .rows import decode_rows
from .stats import Moments
from .store import StoredArrays

PARTS = ("train", "held_out", "all")
RESIDENT_BYTES = 2**30  # a site smaller than this is held in memory and shuffled exactly
WINDOW_CHUNKS = 16  # otherwise the rows of this many chunks are mixed


def open_store(path: str | Path) -> "Store":
    """Open a complete store.

    Raises StoreNotFoundError, StoreIncompleteError, StoreVersionError, and StoreDamagedError
    where a file is missing or cut short.
    """
    return Store(Path(path))


@final
class Store:
    """A complete store, for reading."""

    def __init__(self, path: Path) -> None:
        self._arrays = StoredArrays(path)
        self.path = path
        self.name = path.resolve().name
        about = self._arrays.about
        self.spec: dict[str, Any] = about["spec"]
        self.origin: dict[str, str] = about["origin"]
        self.rows = self._arrays.layout.rows
        self.sites = tuple(self.spec["sites"])
        self.chunk_rows = self._arrays.layout.rows_per_chunk
        self.column = cache(self._column)

    def width(self, site: str) -> int:
        """D of a site."""
        return self._arrays.layout.widths[self.check_site(site)]

    def grid(self, site: str) -> tuple[int, ...]:
        """Rows and columns of the map that a site's vectors were taken from."""
        return self._arrays.layout.grids.get(self.check_site(site), ())

    def check_site(self, site: str) -> str:
        """The site itself; raises ConfigError, with those there are, where it is not stored."""
        if site not in self.sites:
            raise ConfigError(
                f"the store {self.name} has the sites {', '.join(self.sites)}, and not "
                f"{site!r}; choose one of them with --site, or harvest that one."
            )
        return site

    def _column(self, name: str) -> Shaped[np.ndarray, " r"]:
        return self._arrays.vector(name)

    def moments(self, site: str) -> Moments:
        """Count, mean and variance of the valid rows of a site, float64."""
        at = f"statistics/{self.check_site(site)}"
        count = int(self._arrays.about["valid_rows"])
        variance = self._arrays.vector(f"{at}/variance")
        return Moments(count, self._arrays.vector(f"{at}/mean"), variance * count)

    def input_name(self, index: int) -> str:
        """What input number `index` was called, e.g. the image's path in its folder."""
        shard, place = divmod(int(index), self._arrays.layout.inputs_per_shard)
        return str(self._arrays.records[shard]["inputs"][place])

    def read(self, site: str, rows: slice | Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        """Rows by number, in the order asked for; invalid rows are NaN."""
        name = f"activations/{self.check_site(site)}"
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.rows)
            assert step == 1, "rows are read by a slice of step 1, or by number"
            return decode_rows(self._arrays.read(name, start, stop), self._arrays.dtype)
        chosen = np.empty((len(rows), self.width(site)), dtype=np.float32)
        chunks = rows // self.chunk_rows
        for chunk in np.unique(chunks):
            at = chunks == chunk
            start = int(chunk) * self.chunk_rows
            stored = self._arrays.read(name, start, min(start + self.chunk_rows, self.rows))
            chosen[at] = decode_rows(stored[rows[at] - start], self._arrays.dtype)
        return chosen

    def batches(
        self,
        site: str,
        batch_size: int,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        part: str = "train",
        held_out: float = 0.05,
        epochs: int | None = None,
        window: int | None = None,
    ) -> "Batches":
        """Shuffled batches of valid rows, float32 on `device`.

        Over an epoch every valid row of the part comes once; batches flow over the border of
        epochs, so that all are full; with `epochs` given the stream ends, the last one short.
        `part` is train, held_out (a share of the *inputs*, the same in every run) or all.
        `window` is how many chunks are mixed at a time; by default the whole site where it
        fits into a gigabyte, which is an exact shuffle, and 16 chunks otherwise.
        """
        if part not in PARTS:
            raise ConfigError(f"part is one of {', '.join(PARTS)}, and not {part!r}.")
        wanted = self.column("valid")
        if part != "all":
            aside = order.held_out(self.column("input"), held_out)
            wanted = wanted & (aside if part == "held_out" else ~aside)
        if not wanted.any():
            raise ConfigError(
                f"the {part} part of {self.name} has no valid rows at held_out={held_out}; "
                "harvest more inputs, or choose another share."
            )
        all_chunks = -(-self.rows // self.chunk_rows)
        if window is None:
            stored_bytes = self.rows * self.width(site) * 4
            window = all_chunks if stored_bytes <= RESIDENT_BYTES else WINDOW_CHUNKS
        return Batches(self, site, batch_size, wanted, seed, torch.device(device), epochs, window)


@dataclass(frozen=True)
class _Window:
    """Chunks in memory, the order their rows come in, and where in the stream that begins."""

    begin: int
    rows_RD: Float32[np.ndarray, "r d"]
    order: Int[np.ndarray, " n"]

    @property
    def end(self) -> int:
        return self.begin + len(self.order)


@final
class Batches(Iterator[Float[torch.Tensor, "n d"]]):
    """An endless (or `epochs` long) stream of batches whose order is a pure function of
    (seed, epoch): which chunks share a window, and the order of the rows in it."""

    def __init__(
        self,
        store: Store,
        site: str,
        batch_size: int,
        wanted: Shaped[np.ndarray, " r"],
        seed: int,
        device: torch.device,
        epochs: int | None,
        window: int,
    ) -> None:
        self._store, self._site, self._seed, self._device = store, site, seed, device
        self._batch_size, self._epochs, self._width = batch_size, epochs, window
        starts = np.arange(0, store.rows, store.chunk_rows)
        self._wanted = [np.flatnonzero(wanted[s : s + store.chunk_rows]) for s in starts]
        self._counts = np.array([len(w) for w in self._wanted])
        self.rows_per_epoch = int(self._counts.sum())
        self._position = 0
        self._current: _Window | None = None
        self._ahead: Future[_Window] | None = None
        self._resident: tuple[bytes, Float32[np.ndarray, "r d"]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def state(self) -> dict[str, int]:
        """All that is needed to go on from here."""
        return {"rows": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a state, of this stream or of another one of the same arguments."""
        self._position = state["rows"]
        self._current = self._ahead = None

    def __next__(self) -> Float[torch.Tensor, "n d"]:
        end = None if self._epochs is None else self._epochs * self.rows_per_epoch
        stop = self._position + self._batch_size
        stop = stop if end is None else min(stop, end)
        if stop <= self._position:
            self._reader.shutdown()
            raise StopIteration
        parts = []
        while self._position < stop:
            window = self._window_at(self._position)
            last = min(stop, window.end)
            chosen = window.order[self._position - window.begin : last - window.begin]
            parts.append(window.rows_RD[chosen])
            self._position = last
        batch = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return torch.from_numpy(batch).to(self._device)

    def _window_at(self, position: int) -> _Window:
        """The window that holds a place of the stream; the one after it is read meanwhile."""
        if self._current is None or not self._current.begin <= position < self._current.end:
            ready = self._ahead.result() if self._ahead else None
            if ready is None or not ready.begin <= position < ready.end:
                ready = self._load(position)
            self._current = ready
            self._ahead = self._reader.submit(self._load, ready.end)
        return self._current

    def _load(self, position: int) -> _Window:
        epoch, offset = divmod(position, self.rows_per_epoch)
        chunks = order.permutation(len(self._wanted), self._seed, epoch)
        groups = [chunks[i : i + self._width] for i in range(0, len(chunks), self._width)]
        ends = np.cumsum([self._counts[g].sum() for g in groups])
        number = int(np.searchsorted(ends, offset, side="right"))
        rows_RD = self._rows(np.sort(groups[number]))
        return _Window(
            begin=epoch * self.rows_per_epoch + int(ends[number]) - len(rows_RD),
            rows_RD=rows_RD,
            order=order.permutation(len(rows_RD), self._seed, epoch, number),
        )

    def _rows(self, chunks: Int[np.ndarray, " c"]) -> Float32[np.ndarray, "r d"]:
        """The wanted rows of some chunks; kept, where the same chunks come every epoch."""
        key = chunks.tobytes()
        if self._resident is None or self._resident[0] != key:
            size = self._store.chunk_rows
            rows = np.empty((int(self._counts[chunks].sum()), self._store.width(self._site)), "f4")
            at = 0
            for chunk in chunks:
                block = self._store.read(
                    self._site, slice(int(chunk) * size, (int(chunk) + 1) * size)
                )
                wanted = self._wanted[int(chunk)]
                rows[at : at + len(wanted)] = block[wanted]
                at += len(wanted)
            self._resident = (key, rows)
        return self._resident[1]
