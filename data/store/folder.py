"""The folder of a store: a local path or any fsspec URL, behind one interface."""

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import fsspec
import numpy as np
from jaxtyping import UInt8

from ..errors import (
    ConfigError,
    StoreDamagedError,
    StoreFullError,
    StoreLockedError,
    StoreUnreachableError,
    TendrilError,
)
from ..home import KINDS
from ..home import SCHEME as SCHEME
from .atomic import ASIDE, Content, locked, pieces_of, write_together, write_whole

PACKAGES = {  # what to install for a protocol, if it is one of Tendril's extras
    "s3": "pip install 'tendril[s3]' (s3fs)",
    "http": "pip install 'tendril[http]' (aiohttp)",
    "https": "pip install 'tendril[http]' (aiohttp)",
}

REMOVING = "removing"  # the suffix of a folder that is being removed
CREATING = "creating"  # the suffix of a store that is being created
LEFT_FILE = re.compile(rf"\.\d+{re.escape(ASIDE)}$")  # the temporary file of a process
LEFT_FOLDER = re.compile(rf"\.[^/]+-[0-9a-f]{{12}}\.({CREATING}|{REMOVING})")

READING = os.O_RDONLY | os.O_NONBLOCK  # a pipe, which no store holds, is not waited for

Buffer = UInt8[np.ndarray, " _"]


@runtime_checkable
class Folder(Protocol):
    """Named files, written atomically. Names are relative paths with slashes."""

    @property
    def location(self) -> str:
        """The path or URL."""
        ...

    @property
    def distant(self) -> bool:
        """True if reads have such a latency that concurrent reads pay."""
        ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """A file, or a part of it; a negative `start` counts from the end.

        Returns fewer bytes if the file ends earlier. Raises FileNotFoundError.
        """
        ...

    def read_into(self, name: str, start: int, parts: Sequence[Buffer]) -> int:
        """Read consecutive bytes of a file into buffers; returns the number of bytes read.

        Raises FileNotFoundError.
        """
        ...

    def forget(self, name: str, start: int, length: int) -> None:
        """Drop a part from the cache, so that the next read asks the file itself."""
        ...

    def size(self, name: str) -> int | None:
        """The size of a file; None if there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically. Raises StoreFullError."""
        ...

    def write_together(self, files: Mapping[str, Content]) -> None:
        """`write` for several files, in any order."""
        ...

    @property
    def listed(self) -> bool:
        """True if `sizes` works. It does not on a web server, which cannot list its files."""
        ...

    def sizes(self, under: str = "") -> dict[str, int]:
        """Every file below a name -> its size."""
        ...

    def remove(self, under: str = "") -> None:
        """Remove every file below a name."""
        ...


@final
class LocalFolder:
    """A folder on this machine."""

    distant = False
    listed = True

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def location(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """See Folder."""
        handle = os.open(self.path / name, READING)
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise _irregular(self.path / name)
            size = about.st_size
            first = max(0, size + start) if start < 0 else start
            return os.pread(handle, size - first if length is None else length, first)
        finally:
            os.close(handle)

    def read_into(self, name: str, start: int, parts: Sequence[Buffer]) -> int:
        """See Folder: one system call, without an intermediate buffer."""
        handle = os.open(self.path / name, READING)
        try:
            return os.preadv(handle, [part.data for part in parts], start)
        except OSError as error:
            if error.errno == errno.ESPIPE:
                raise _irregular(self.path / name) from None
            raise
        finally:
            os.close(handle)

    def forget(self, name: str, start: int, length: int) -> None:
        """See Folder: there is no cache."""

    def size(self, name: str) -> int | None:
        """See Folder."""
        file = self.path / name
        return file.stat().st_size if file.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """See Folder."""
        write_whole(self.path / name, content)

    def write_together(self, files: Mapping[str, Content]) -> None:
        """See Folder."""
        write_together({self.path / name: content for name, content in files.items()})

    def sizes(self, under: str = "") -> dict[str, int]:
        """See Folder: links to files count, links to folders, pipes and devices do not."""
        found: dict[str, int] = {}
        waiting = [(self.path / under, f"{under}/" if under else "")]
        while waiting:
            folder, prefix = waiting.pop()
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                if entry.is_dir(follow_symlinks=False):  # links could lead in a circle
                    waiting.append((folder / entry.name, f"{prefix}{entry.name}/"))
                elif entry.is_file() and not entry.name.endswith(ASIDE):
                    found[prefix + entry.name] = entry.stat().st_size
        return found

    def sweep(self) -> None:
        """Remove the temporary files of writers that died."""
        for folder, _, files in os.walk(self.path):
            for name in filter(LEFT_FILE.search, files):
                (Path(folder) / name).unlink(missing_ok=True)

    def take_away(self) -> None:
        """Remove the whole folder, which disappears at once: it is renamed, then deleted."""
        aside = LocalFolder(self.path.with_name(f".{self.path.name}.{REMOVING}"))
        aside.remove()  # left by a removal that was stopped
        self.path.rename(aside.path)
        aside.remove()

    def remove(self, under: str = "") -> None:
        """See Folder. Metadata go first, so that a half-removed store does not look complete.

        Symbolic links are removed and never followed.
        """
        whole = self.path / under
        if whole.is_symlink():
            whole.unlink()
            return
        names = []
        for folder, folders, files in os.walk(whole):
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            names += [(Path(folder) / name).as_posix() for name in (*files, *links)]
        for name in _metadata_first(names):
            Path(name).unlink(missing_ok=True)
        for folder, _, _ in os.walk(whole, topdown=False):
            Path(folder).rmdir()


@final
class RemoteFolder:
    """A folder at an fsspec URL: an object store, a web server, or in memory.

    Parts of files (chunks, which never change in a complete store) are kept in the folder `cache`
    if one is given. Raises ConfigError for a URL that fsspec cannot open.
    """

    distant = True

    def __init__(self, url: str, cache: Path | None = None) -> None:
        self._url = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            protocol = self._url.partition(SCHEME)[0]
            package = PACKAGES.get(protocol, "see fsspec's list of protocols")
            raise ConfigError(
                f"a store must be at a path or at a URL that fsspec can open; got {url} ({error}). "
                f"Install the package for {protocol}: {package}."
            ) from error
        except Exception as error:  # a protocol may connect or look for credentials
            raise _unreachable(self._url, error) from error
        self._cache = None
        if cache is not None:
            from .cache import ChunkCache

            self._cache = ChunkCache(cache)
        self.listed = not self._url.startswith(("http://", "https://"))

    @property
    def location(self) -> str:
        """The URL."""
        return self._url

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """See Folder."""
        if self._cache is None or (length is None and start >= 0):
            return self._fetch(name, start, length)
        key = f"{self._url} {name} {start} {length}"
        content = self._cache.get(key)
        if content is None:
            content = self._fetch(name, start, length)
            self._cache.put(key, content)
        return content

    def read_into(self, name: str, start: int, parts: Sequence[Buffer]) -> int:
        """See Folder."""
        content = self.read(name, start, sum(part.nbytes for part in parts))
        taken = 0
        for part in parts:
            piece = np.frombuffer(content, np.uint8)[taken : taken + part.nbytes]
            part[: len(piece)] = piece
            taken += len(piece)
        return taken

    def forget(self, name: str, start: int, length: int) -> None:
        """See Folder."""
        if self._cache is not None:
            self._cache.drop(f"{self._url} {name} {start} {length}")

    def size(self, name: str) -> int | None:
        """See Folder."""
        try:
            with self._asking(name):
                self._files.invalidate_cache()
                about: dict[str, Any] = self._files.info(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        return int(about["size"])

    def write(self, name: str, content: bytes) -> None:
        """See Folder: object stores write atomically."""
        path = f"{self._root}/{name}"
        with self._asking(name):
            self._files.makedirs(self._files._parent(path), exist_ok=True)
            self._files.pipe_file(path, content)

    def write_together(self, files: Mapping[str, Content]) -> None:
        """See Folder: the files are sent concurrently."""
        with ThreadPoolExecutor(len(files)) as pool:
            list(pool.map(self.write, files, (b"".join(pieces_of(c)) for c in files.values())))

    def sizes(self, under: str = "") -> dict[str, int]:
        """See Folder: one listing."""
        if not self.listed:
            raise ConfigError(
                f"{self._url} is on a web server, which cannot list its files. Reading rows works; "
                "for anything else copy the store to this machine first."
            )
        whole = f"{self._root}/{under}" if under else self._root
        with self._asking(under):
            self._files.invalidate_cache()
            listed: dict[str, dict[str, Any]] = self._files.find(whole, detail=True)
        root = self._files._strip_protocol(self._root).rstrip("/") + "/"
        return {
            self._files._strip_protocol(path).removeprefix(root): int(about["size"])
            for path, about in listed.items()
        }

    def remove(self, under: str = "") -> None:
        """See Folder."""
        names = _metadata_first(self.sizes(under))
        if names:
            with self._asking(under):
                self._files.rm([f"{self._root}/{name}" for name in names])

    def _fetch(self, name: str, start: int, length: int | None) -> bytes:
        path = f"{self._root}/{name}"
        end = None if length is None or start + length == 0 else start + length
        with self._asking(name):
            try:
                content: bytes = self._files.cat_file(path, start=start or None, end=end)
            except FileNotFoundError:
                raise
            except Exception:  # protocols differ in what they raise for a part beyond the end
                size = self.size(name)
                if size is None or size > max(start, 0):
                    raise
                return b""
        return content

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Turn the errors of protocols into those of Tendril."""
        try:
            yield
        except (FileNotFoundError, TendrilError):
            raise
        except Exception as error:  # protocols differ in what they raise
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFullError(
                    f"there is no room for {self._url}/{name}. Make room and run the same command "
                    "again; it continues from what is already written."
                ) from error
            raise _unreachable(f"{self._url}/{name}".rstrip("/"), error) from error


def _unreachable(place: str, error: Exception) -> StoreUnreachableError:
    reason = " ".join(str(error).split())[:300]
    return StoreUnreachableError(
        f"{place} cannot be reached ({type(error).__name__}: {reason}). Check the address, the "
        "network and the credentials, and run the same command again."
    )


def _irregular(path: Path) -> StoreDamagedError:
    return StoreDamagedError(
        f"{path} must be a regular file; it is a pipe, a device or a folder. Remove it, and "
        "harvest the store again or copy it again."
    )


def open_folder(location: str | Path, cache: str | Path | None = None) -> Folder:
    """The folder at a path, or at a URL such as s3://bucket/store or memory://store.

    Parts of remote files are kept in `cache`, by default $TENDRIL_CACHE if that is set.
    """
    if SCHEME not in str(location):
        return LocalFolder(Path(location))
    kept = cache or os.environ.get("TENDRIL_CACHE")
    return RemoteFolder(str(location), Path(kept) if kept else None)


def sweep_beside(path: Path) -> None:
    """Remove the folders that a process left in a home when it was killed while it created or
    removed a store, a run or a report. `path` is one of these.

    A process that still works on one holds its lock, or creates a store under that of the folder
    around it, which is taken here.
    """
    names = [kind.folder for kind in KINDS]
    inside = path.parent.name in names
    for place in [path.parents[1] / n for n in names] if inside else [path.parent]:
        left = [p for p in place.glob(".*-*.*") if LEFT_FOLDER.fullmatch(p.name)]
        if not left or place.is_symlink():
            continue
        with suppress(StoreLockedError), locked(place):
            for folder in left:
                if folder.is_dir() and not folder.is_symlink():
                    with suppress(StoreLockedError, FileNotFoundError), locked(folder):
                        LocalFolder(folder).remove()


def _metadata_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (not name.endswith("zarr.json"), name.count("/"), name))
