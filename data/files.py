"""Files that are there whole or not at all, and the lock of a folder."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreFullError, StoreLockedError

ASIDE = ".part"  # the end of the name of what is being written


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one, the new one or none.

    Written aside, fsynced, renamed; then the folder is fsynced, so that the name lasts too.
    Raises StoreFullError where the disk has no room; what was written aside is removed.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}{ASIDE}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        aside.unlink(missing_ok=True)
        raise StoreFullError(
            f"the disk is full: {len(content):,} bytes for {path} found no room; what is "
            "written so far is kept, so make room and run the same command again."
        ) from error
    sync_folder(path.parent)


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
