"""The two kinds of places: a folder, and a repository on the hub. Both are written as a whole."""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from ..errors import ConfigError, ExchangeError
from ..store.atomic import check_no_links, sync, write_whole
from .address import HubAddress, parse_address
from .client import cached, hub_api, hub_errors_of, told

Content = Path | bytes
AT_ONCE = 8  # downloads


@runtime_checkable
class Place(Protocol):
    """Where the files of a run or store lie for others."""

    def names(self) -> list[str] | None:
        """The files there, as relative paths with slashes; None if there are none."""
        ...

    def read(self, name: str) -> bytes:
        """A small file."""
        ...

    def fetch(self, names: Sequence[str], folder: Path, *, again: bool = False) -> None:
        """Copy files into a folder; `again` without what a cache holds of them."""
        ...

    def send(self, files: Mapping[str, Content], obsolete: Sequence[str], what: str) -> None:
        """Write all files and remove those that are obsolete, or do nothing at all."""
        ...


def place_of(text: str, *, private: bool = False) -> "FolderPlace | HubPlace":
    """The place at an address. Raises ConfigError for what is none."""
    address = parse_address(text)
    return FolderPlace(address) if isinstance(address, Path) else HubPlace(address, private)


@final
class FolderPlace:
    """A folder. It is filled beside its place and then renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def names(self) -> list[str] | None:
        if not self.path.is_dir():
            if self.path.exists() or self.path.is_symlink():
                raise ConfigError(f"{self.path} must be a folder; it is a file.")
            return None
        try:
            check_no_links(self.path)
        except ConfigError as error:
            raise ExchangeError(
                f"{self.path} must hold no symbolic links ({error}) Remove them there."
            ) from error
        found = [p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()]
        return sorted(found) or None

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def fetch(self, names: Sequence[str], folder: Path, *, again: bool = False) -> None:
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copied = target.with_name(f"{target.name}.part")
            shutil.copyfile(self.path / name, copied, follow_symlinks=False)
            copied.replace(target)

    def send(self, files: Mapping[str, Content], obsolete: Sequence[str], what: str) -> None:
        path = self.path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.pushing")
        before = path.with_name(f".{path.name}.replaced")
        if before.exists() and not path.exists():  # of a push that was stopped between two renames
            before.rename(path)
        for left in (beside, before):
            if left.exists():
                shutil.rmtree(left)
        kept = [name for name in self.names() or () if name not in {*files, *obsolete}]
        try:
            for name in kept:
                _put(self.path / name, beside / name)
            for name, content in files.items():
                _put(content, beside / name)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        if path.exists():
            path.rename(before)
        beside.rename(path)
        sync(path.parent)
        if before.exists():
            shutil.rmtree(before)


def _put(content: Content, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        write_whole(target, content)
        return
    shutil.copyfile(content, target, follow_symlinks=False)
    sync(target)


@final
class HubPlace:
    """A folder of a repository. What is written is one commit; what is read, of one commit."""

    def __init__(self, address: HubAddress, private: bool = False) -> None:
        self.address, self.private = address, private
        self._commit = ""

    def __str__(self) -> str:
        return str(self.address)

    def names(self) -> list[str] | None:
        hub, address = hub_api(), self.address
        missing = hub_errors_of("RepositoryNotFoundError")
        with told(address):
            try:
                info = hub.repo_info(
                    address.repository, repo_type=address.kind, revision=address.revision or None
                )
            except missing as error:
                if type(error).__name__ == "GatedRepoError":
                    raise
                return None
            self._commit = str(info.sha or "")
            try:
                tree = hub.list_repo_tree(
                    address.repository,
                    address.folder or None,
                    recursive=True,
                    revision=self._commit or None,
                    repo_type=address.kind,
                )
                paths = [entry.path for entry in tree if hasattr(entry, "size")]
            except hub_errors_of("EntryNotFoundError"):
                return None
        start = f"{address.folder}/" if address.folder else ""
        return sorted(p.removeprefix(start) for p in paths if p.startswith(start)) or None

    @property
    def pinned(self) -> HubAddress:
        """The address at the commit that `names` found."""
        return replace(self.address, revision=self._commit or self.address.revision)

    def read(self, name: str) -> bytes:
        return cached(self.pinned, [name])[name].read_bytes()

    def fetch(self, names: Sequence[str], folder: Path, *, again: bool = False) -> None:
        hub, address = hub_api(), self.pinned
        loaded = folder / ".download"

        def one(name: str) -> None:
            with told(address):
                path = hub.hf_hub_download(
                    address.repository,
                    address.inside(name),
                    revision=address.revision or None,
                    repo_type=address.kind,
                    local_dir=loaded,
                    force_download=again,
                )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Path(path).replace(folder / name)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, names))
        shutil.rmtree(loaded, ignore_errors=True)

    def send(self, files: Mapping[str, Content], obsolete: Sequence[str], what: str) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        hub, address = hub_api(), self.address
        operations: list[Any] = [
            CommitOperationAdd(address.inside(name), content) for name, content in files.items()
        ]
        operations += [CommitOperationDelete(address.inside(name)) for name in obsolete]
        with told(address):
            hub.create_repo(
                address.repository,
                repo_type=address.kind,
                private=self.private or None,
                exist_ok=True,
            )
            hub.create_commit(
                address.repository,
                operations,
                commit_message=what,
                repo_type=address.kind,
                revision=address.revision or None,
                parent_commit=self._commit or None,
            )


def cached_folder(text: str, wanted: Sequence[str]) -> Path:
    """A folder on the hub that another tool wrote, in the hub's cache: of its files those that are
    `wanted`. Raises HubError, and ExchangeError if it has none of them."""
    address = parse_address(text)
    assert not isinstance(address, Path), text
    place = HubPlace(address)
    found = sorted(set(wanted) & set(place.names() or ()))
    if not found:
        raise ExchangeError(
            f"{address} must hold a file called {', '.join(wanted)}; it holds none, or may not be "
            "read. Check the address, and HF_TOKEN."
        )
    return cached(place.pinned, found)[found[0]].parent
