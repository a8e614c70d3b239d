"""Files that are there whole or not at all, and the lock of a folder."""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreFullError, StoreLockedError

SYNCS = 8  # files that a disk is asked to sync at once
ASIDE = ".part"  # the end of the name of what is being written

Content = bytes | Sequence[bytes | memoryview]  # whole, or piece by piece


def pieces_of(content: Content) -> Sequence[bytes | memoryview]:
    """A content as pieces."""
    return [content] if isinstance(content, bytes) else content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one, the new one or none.

    Written aside, fsynced, renamed; then the folder is fsynced, so that the name lasts too.
    Raises StoreFullError where the disk has no room; what was written aside is removed.
    """
    write_together({path: content})


def write_together(files: Mapping[Path, Content]) -> None:
    """`write_whole` of several files that need no order among them: a disk that is asked to
    sync many at once does so in one go. Raises StoreFullError; then none of them is there."""
    asides = {path: path.with_name(f"{path.name}.{os.getpid()}{ASIDE}") for path in files}
    folders = {path.parent for path in files}
    folders |= {folder.parent for folder in folders if not folder.exists()}
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(min(len(files), SYNCS)) as pool:
        writes = {path: pool.submit(_write, aside, files[path]) for path, aside in asides.items()}
    for path, write in writes.items():
        error = write.exception()
        if error is None:
            continue
        for aside in asides.values():
            aside.unlink(missing_ok=True)
        if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        size = sum(map(len, pieces_of(files[path])))
        raise StoreFullError(
            f"the disk is full: {size:,} bytes for {path} found no room; what is "
            "written so far is kept, so make room and run the same command again."
        ) from error
    for path, aside in asides.items():
        aside.replace(path)
    with ThreadPoolExecutor(min(len(folders), SYNCS)) as pool:
        list(pool.map(sync_folder, folders))


def _write(path: Path, content: Content) -> None:
    with path.open("wb") as file:
        file.writelines(pieces_of(content))
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder (flock on the folder itself: it leaves no file, and the
    system lets go of it when the process dies, however it dies), alone or `shared`.

    Raises StoreLockedError where another process holds it and `wait` is false.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise StoreLockedError(
                f"another harvest is writing {folder}; wait until it ends, or stop it "
                "and run this command again: it goes on where that one stopped."
            ) from None
        yield
    finally:
        os.close(handle)
