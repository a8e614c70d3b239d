"""Files that are there whole or not at all, and the lock of a folder."""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import StoreFullError, StoreLockedError

LARGE = 2**20  # bytes from which a piece is worth a word to the disk
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
    """`write_whole` of several files that need no order among them: all are on their way before
    the first is waited for. Raises StoreFullError; then none of them is there."""
    asides = {path: path.with_name(f"{path.name}.{os.getpid()}{ASIDE}") for path in files}
    folders = {path.parent for path in files}
    folders |= {folder.parent for folder in folders if not folder.exists()}
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for path in files:
            _fill(asides[path], files[path])
        for path in files:
            sync(asides[path])
    except OSError as error:
        for aside in asides.values():
            aside.unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        size = sum(map(len, pieces_of(files[path])))
        raise StoreFullError(
            f"the disk is full: {size:,} bytes for {path} found no room; what is "
            "written so far is kept, so make room and run the same command again."
        ) from error
    for path, aside in asides.items():
        aside.replace(path)
    for folder in folders:
        sync(folder)


def _fill(path: Path, content: Content) -> None:
    """Write a file. The disk is told of each large piece as soon as it is there (on Linux, what
    is said to be not needed is written at once), so that little is left to do when the file is
    synced: otherwise the disk rests while rows are encoded, and then is waited for."""
    with path.open("wb") as file:
        start = 0
        for piece in pieces_of(content):
            file.write(piece)
            if len(piece) >= LARGE and hasattr(os, "posix_fadvise"):
                file.flush()
                os.posix_fadvise(file.fileno(), start, len(piece), os.POSIX_FADV_DONTNEED)
            start += len(piece)


def sync(path: Path) -> None:
    """Make a file's content last, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
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
