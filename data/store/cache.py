"""A cache on this machine for parts of remote files."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock, get_ident
from typing import final

CACHE_BYTES = 32 * 2**30  # the size of the cache


@final
class ChunkCache:
    """Parts of remote files, kept in a local folder of at most CACHE_BYTES.

    The oldest parts are evicted first. Several processes may share a folder; parts that are lost
    are fetched again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "chunks"  # a subfolder, so that the user's files are never evicted
        self._lock = Lock()
        self._kept: int | None = None

    def get(self, key: str) -> bytes | None:
        """The content stored under a key, or None."""
        with suppress(FileNotFoundError):
            return self._place(key).read_bytes()
        return None

    def drop(self, key: str) -> None:
        """Remove a key."""
        self._place(key).unlink(missing_ok=True)

    def put(self, key: str, content: bytes) -> None:
        """Store a content, and evict old ones if the cache is full."""
        path = self._place(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}.{get_ident()}")
        aside.write_bytes(content)  # not fsynced: lost parts are fetched again
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
        """The stored parts, with their sizes and modification times."""
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):  # another process may evict it
                about = path.stat()
                yield path, about.st_size, about.st_mtime_ns

    def _place(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / digest[:2] / digest
