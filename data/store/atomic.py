"""Atomic writes of files, the lock of a folder, the refusal of symbolic links, and JSON files that
hold digests of themselves and of the files beside them."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from ..errors import ConfigError, StoreFullError, StoreLockedError

LARGE = 2**20  # bytes from which the kernel is asked to write a piece at once
ASIDE = ".part"  # the suffix of temporary files
OWN, BESIDE = "digest", "xxh128"  # entries of a sealed JSON file: of the rest of it, of files

Content = bytes | Sequence[bytes | memoryview]  # a file's content, whole or in pieces


def pieces_of(content: Content) -> Sequence[bytes | memoryview]:
    """A content as a sequence of pieces."""
    return [content] if isinstance(content, bytes) else content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: after a crash there is the old file, the new one or none.

    The content goes to a temporary file, which is fsynced and renamed; then the folder is
    fsynced. Raises StoreFullError if the disk is full, and removes the temporary file.
    """
    write_together({path: content})


def write_together(files: Mapping[Path, Content]) -> None:
    """`write_whole` for several files in any order, which is faster than one after the other.

    All files are written before the first one is fsynced. Raises StoreFullError if the disk is
    full; then none of them is written.
    """
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
            f"the disk is full: {path} needs {size:,} bytes. Make room and run the same command "
            "again; it continues from what is already written."
        ) from error
    for path, aside in asides.items():
        aside.replace(path)
    for folder in folders:
        sync(folder)


def _fill(path: Path, content: Content) -> None:
    """Write a file, asking the kernel to flush each large piece at once.

    On Linux POSIX_FADV_DONTNEED starts writeback. Without it the disk is idle while rows are
    encoded, and fsync has to wait for all of the data.
    """
    path.unlink(missing_ok=True)  # of a writer that died, or a link, which is not followed
    with path.open("xb") as file:
        start = 0
        for piece in pieces_of(content):
            file.write(piece)
            if len(piece) >= LARGE and hasattr(os, "posix_fadvise"):
                file.flush()
                os.posix_fadvise(file.fileno(), start, len(piece), os.POSIX_FADV_DONTNEED)
            start += len(piece)


def sync(path: Path) -> None:
    """fsync a file, or a folder so that renames in it are durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, exclusively or `shared`.

    The lock is flock on the folder itself, which leaves no file and ends with the process. Raises
    StoreLockedError if another process holds it and `wait` is false.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise StoreLockedError(
                f"another process is writing {folder}. Wait until it ends, or stop it and run "
                "this command again: it continues where that one stopped."
            ) from None
        yield
    finally:
        os.close(handle)


def is_alive(process: int) -> bool:
    """True if a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def check_not_link(folder: Path) -> None:
    """Raise ConfigError if a folder is a symbolic link."""
    if folder.is_symlink():
        raise ConfigError(
            f"{folder} must be a folder; got a symbolic link to {folder.readlink()}, which is not "
            "followed. Remove the link, or give another --home."
        )


def check_no_links(folder: Path) -> None:
    """Raise ConfigError if a folder is a symbolic link or holds one at any depth."""
    check_not_link(folder)
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise ConfigError(
                        f"{folder} must hold no symbolic links to be written; got {entry.path}, "
                        f"which leads to {Path(entry.path).readlink()}. Remove the link, or run "
                        "the same command with --overwrite, which removes links and does not "
                        "follow them."
                    )
                if entry.is_dir():
                    waiting.append(Path(entry.path))


def remove_asides(folder: Path, *, deep: bool = True) -> None:
    """Remove the temporary files that a killed writer left in a folder, whose lock the caller
    holds, and, if `deep`, below it. Links to folders are not followed."""
    for path in (folder.rglob if deep else folder.glob)(f"*{ASIDE}"):
        number = path.suffixes[-2:-1]  # the process; other programs write .part files, too
        if number and number[0][1:].isdigit() and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)


def digest_of(path: Path) -> str:
    """The XXH128 digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def sealed(value: Mapping[str, Any], files: Iterable[Path], folder: Path) -> bytes:
    """A JSON object as a file, with the digests of `files` below `folder` and of the object."""
    beside = {path.relative_to(folder).as_posix(): digest_of(path) for path in files}
    whole = {**value, BESIDE: beside}
    return (json.dumps({**whole, OWN: _own_digest(whole)}, indent=2) + "\n").encode()


def unsealed(value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A sealed JSON object without its digests, and the digests of the files beside it.

    An object of an earlier version has no digests. Raises ValueError if the object has changed.
    """
    if OWN not in value and BESIDE not in value:
        return value, {}
    whole = {name: entry for name, entry in value.items() if name != OWN}
    if value.get(OWN) != _own_digest(whole):
        raise ValueError("its content has changed: its digest differs")
    return {name: v for name, v in whole.items() if name != BESIDE}, whole.get(BESIDE, {})


def changed_file(folder: Path, digests: Mapping[str, str]) -> str:
    """The first file that is missing or differs from its digest, in words; empty if none does."""
    for name, digest in digests.items():
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
        if digest_of(folder / name) != digest:
            return f"{folder / name} has changed: its digest differs"
    return ""


def _own_digest(whole: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(whole))  # keys and tuples as they are read back
    return xxhash.xxh3_128(json.dumps(plain, sort_keys=True).encode()).hexdigest()
