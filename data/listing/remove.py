"""Remove a store, a run or a report."""

import time
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..home import RUN, SCHEME, STORE
from ..store.atomic import locked
from ..store.folder import LocalFolder, open_folder, sweep_beside
from ..store.inspect import check_store
from .describe import MALFORMED, file_sizes, read_json
from .entries import CONFIG, Entry, list_entries


def check_removable(entry: Entry) -> None:
    """Raise ConfigError for a symbolic link, and StoreNotFoundError for what is not a store."""
    if entry.kind is STORE:
        check_store(open_folder(entry.location))
    if SCHEME in entry.location:
        return
    path = _place(entry)
    if path.is_symlink():
        raise ConfigError(
            f"{entry.location} is a symbolic link to {path.readlink()}, and rm does not "
            f"follow links. Remove the {entry.kind.word} at its own path, and the link by hand."
        )
    above = entry.path.parent
    if above.is_symlink():
        raise ConfigError(
            f"{entry.location} lies in {above}, a symbolic link to {above.readlink()}, and rm does "
            f"not follow links. Remove the {entry.kind.word} at its own path: {path}."
        )


def _place(entry: Entry) -> Path:
    """The real path of an entry, whose last part may still be a link."""
    given = entry.path
    if given.name in ("", ".."):
        return given.resolve()
    return given.parent.resolve() / given.name


def remove_entry(entry: Entry) -> dict[str, Any]:
    """Remove a store, run or report, finished or not. Returns its location, bytes and seconds.

    A local folder disappears at once: it is renamed, then deleted. Symbolic links inside are
    removed, never followed. Raises StoreLockedError while another process writes it.
    """
    check_removable(entry)
    began = time.perf_counter()
    if SCHEME in entry.location:
        folder = open_folder(entry.location)
        freed = sum(folder.sizes().values())
        folder.remove()
    else:
        path = _place(entry)
        freed = sum(file_sizes(path).values())
        sweep_beside(path)
        with locked(path):
            LocalFolder(path).take_away()
    seconds = round(time.perf_counter() - began, 2)
    return {"removed": entry.location, "kind": entry.kind.word, "bytes": freed, "seconds": seconds}


def runs_on(store: Entry, home: str = "") -> int:
    """The number of runs of a home that were trained on a store."""
    count = 0
    for run in list_entries(home, (RUN,)):
        try:
            config = read_json(run.path / CONFIG)
        except MALFORMED:
            continue
        used = [config.get(name) for name in ("store", "paired_store", "beside")]  # older: beside
        count += store.name in used
    return count
