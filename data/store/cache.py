"""Parts of distant files, kept on this machine."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock, get_ident
from typing import final

CACHE_BYTES = 32 * 2**30  # of chunks of elsewhere that are kept here; the oldest go first


@final
class ChunkCache:
    """Parts of distant files kept in a folder of this machine, CACHE_BYTES at most: beyond
    that the oldest go. Several processes may share it; what is lost is fetched again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "chunks"  # a subfolder: nothing of the user's own is ever evicted
        self._lock = Lock()
        self._kept: int | None = None

    def get(self, key: str) -> bytes | None:
        """What was put under a key, if it is still here."""
        with suppress(FileNotFoundError):
            return self._place(key).read_bytes()
        return None

    def drop(self, key: str) -> None:
        """Forget a key."""
        self._place(key).unlink(missing_ok=True)

    def put(self, key: str, content: bytes) -> None:
        """Keep a content, and let go of old ones where there are too many."""
        path = self._place(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}.{get_ident()}")
        aside.write_bytes(content)  # not synced: what is lost is fetched again
        aside.replace(path)
        with self._lock:
            if self._kept is None:
                self._kept = sum(size for _, size, _ in self._entries())
            else:
                self._kept += len(content)
            if self._kept > CACHE_BYTES:
                self._evict()

    def _evict(self) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[2])
        self._kept = sum(size for _, size, _ in entries)
        for old, size, _ in entries:
            if self._kept <= 0.9 * CACHE_BYTES:
                break
            old.unlink(missing_ok=True)
            self._kept -= size

    def _entries(self) -> Iterator[tuple[Path, int, int]]:
        """Every kept part, its size, and when it was kept."""
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another process evicts too
                about = path.stat()
                yield path, about.st_size, about.st_mtime_ns

    def _place(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / digest[:2] / digest
