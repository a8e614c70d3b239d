"""Remove a store, a run or a report."""

import os
import time
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..home import RUN, SCHEME, STORE
from ..store.atomic import locked
from ..store.folder import LocalFolder, open_folder
from ..store.inspect import check_store
from .describe import MALFORMED, file_sizes, read_json
from .entries import CONFIG, Entry, list_entries

REMOVING = "removing"


def check_removable(entry: Entry) -> None:
    """Raise ConfigError for a symbolic link, and StoreNotFoundError for what is not a store."""
    if entry.kind is STORE:
        check_store(open_folder(entry.location))
    if SCHEME not in entry.location and entry.path.is_symlink():
        raise ConfigError(
            f"{entry.location} is a symbolic link to {entry.path.readlink()}, and rm does not "
            f"follow links. Remove the {entry.kind.word} at its own path, and the link by hand."
        )


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
        path = Path(os.path.abspath(entry.location))  # noqa: PTH100 - resolve() follows links
        freed = sum(file_sizes(path).values())
        with locked(path):
            aside = path.with_name(f".{path.name}.{REMOVING}")
            LocalFolder(aside).remove()  # left by a removal that was stopped
            path.rename(aside)
            LocalFolder(aside).remove()
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
        count += store.name in (config.get("store"), config.get("beside"))
    return count
