"""Which subject files the user has named, so that a store cannot have other code run.

A store says where its subject was, but whoever made the store wrote that, and the digest of the
file beside it. Code therefore runs only from files that the user has named in a command here.
Each is remembered by its path and content, as an empty file in `$XDG_STATE_HOME/tendril/subjects`.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tendril.data.errors import SubjectError, WeightsError
from tendril.data.home import KINDS, STORE


def check_named(
    subject: str, store: str | Path, identity: Mapping[str, Any], others: Iterable[Path] = ()
) -> None:
    """Raise unless the subject that a store names can be loaded without running unknown code.

    A `FILE.py:FUNCTION` must lie outside the store, the folders of its home and `others`; have
    the digest in `identity`, the store's entry of the subject; and have been named by the user
    before, at this path with this content. Raises SubjectError and WeightsError.
    """
    file, _, _ = subject.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        return  # no code, or `load_subject` raises
    name = Path(store).name
    if any(_inside(path, folder) for folder in (*_folders(Path(store)), *others)):
        raise SubjectError(
            f"the subject file of {name} must lie outside the folders of stores, runs and "
            f"reports; got {path}. Its code was not run. Pass --subject {subject} if you trust it."
        )
    digest = file_digest(path)
    if identity.get("file") != digest:
        recorded = str(identity.get("file", "none"))[:12]
        raise WeightsError(
            f"{name} was harvested from a subject file with SHA-256 {recorded}; {path} has "
            f"{digest[:12]}. Its code was not run. Pass --subject with the file of the harvest."
        )
    if not _place(path, digest).is_file():
        raise SubjectError(
            f"{name} names {path} as its subject file, and no command here was given that file "
            f"with --subject. Its code was not run. Pass --subject {subject} if you trust it."
        )


def remember(path: Path, digest: str) -> None:
    """Remember that the user named a file. Without a writable folder, nothing is remembered."""
    place = _place(path, digest)
    with suppress(OSError):
        if not place.is_file():
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.touch(mode=0o600)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _place(path: Path, digest: str) -> Path:
    key = hashlib.sha256(f"{path.resolve()}\n{digest}".encode()).hexdigest()
    base = os.environ.get("XDG_STATE_HOME")
    folder = Path(base) if base else Path.home() / ".local" / "state"
    return folder / "tendril" / "subjects" / key


def _folders(store: Path) -> list[Path]:
    """The store, and all stores, runs and reports of its home."""
    parent = Path(os.path.abspath(store)).parent  # noqa: PTH100 - resolve() follows links
    home = [parent.parent / kind.folder for kind in KINDS] if parent.name == STORE.folder else []
    return [store, *home]


def _inside(path: Path, folder: Path) -> bool:
    """True if a file lies in a folder, by its path or through symbolic links."""
    named = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
    for place in (Path(os.path.abspath(folder)), folder.resolve()):  # noqa: PTH100
        if named.is_relative_to(place) or path.resolve().is_relative_to(place):
            return True
    return False
