"""The stores, runs and reports of a home, and which of them a name means.

Runs and reports are recognised and described by their JSON files alone, which train and study
write: this package imports neither.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..errors import ConfigError, TendrilError
from ..home import (
    KINDS,
    LATEST,
    REPORT,
    RUN,
    SCHEME,
    SHOWN,
    STORE,
    Kind,
    fitting,
    folder_of,
    store_location,
)
from ..store.folder import open_folder

CONFIG, RESULT, SWEEP, ABOUT = "config.json", "result.json", "sweep.json", "about.json"
MARKERS = {STORE: (STORE.marker,), RUN: (CONFIG, SWEEP), REPORT: (RESULT, ABOUT)}
KEYS = {
    CONFIG: (b'"objective"', b'"store"'),
    SWEEP: (b'"base"', b'"objectives"'),
    ABOUT: (b'"study"', b'"identity"'),
    RESULT: (b'"study"',),
}
DIGEST = re.compile(r"-[0-9a-f]{12}$")


@final
@dataclass(frozen=True)
class Entry:
    """A store, a run (finished or not, or a sweep of runs) or a report."""

    kind: Kind
    name: str
    location: str  # a path, or the URL of a store

    @property
    def path(self) -> Path:
        """The folder; meaningless for a URL."""
        return Path(self.location)


def list_entries(home: str = "", kinds: Sequence[Kind] = KINDS) -> list[Entry]:
    """Every store, run and report of a home, by kind and name.

    A home at a URL holds only stores.
    """
    found: list[Entry] = []
    place = store_location("", home or None).rstrip("/")
    for kind in kinds:
        if SCHEME in place:
            files = open_folder(place).sizes() if kind is STORE else {}
            names = {n.partition("/")[0] for n in files if n.endswith(STORE.marker)}
            where = place
        else:
            folder = folder_of(kind, home)
            names = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
            names = {name for name in names if is_one(kind, folder / name)}
            where = str(folder)
        shown = sorted(name for name in names if not name.startswith("."))
        found += [Entry(kind, name, f"{where}/{name}") for name in shown]
    return found


def is_one(kind: Kind, path: Path) -> bool:
    """True if a folder is a store, a run or a report: it holds the files of one.

    Other programs write a config.json or a result.json, too. So runs and reports must also have
    the digest at the end of their name, or the entries that Tendril writes into these files.
    """
    present = [path / name for name in MARKERS[kind] if (path / name).is_file()]
    if kind is STORE or not present:
        return bool(present)
    if DIGEST.search(path.absolute().name):
        return True
    return any(all(key in file.read_bytes() for key in KEYS[file.name]) for file in present)


def find_entry(wanted: str, home: str = "", kinds: Sequence[Kind] = KINDS) -> Entry:
    """The store, run or report called `wanted`, of any of the kinds.

    `wanted` is a path, a URL, a full name, the beginning of a single name, or `latest`. Raises
    ConfigError, listing the candidates, if several or none fit.
    """
    named = at_path(wanted, kinds)
    if named is not None:
        return named
    present = list_entries(home, kinds)
    if wanted == LATEST and present:
        return max(present, key=written)
    names = set(fitting(wanted, [entry.name for entry in present]))
    candidates = [entry for entry in present if entry.name in names]
    if len(candidates) == 1:
        return candidates[0]
    words = _any_of(kinds)
    if candidates:
        hint = " Use --kind to choose among kinds." if len({c.kind for c in candidates}) > 1 else ""
        raise ConfigError(
            f"{wanted!r} must name one {words}; it fits {len(candidates)}: {in_words(candidates)}. "
            f"Give more of the name.{hint}"
        )
    raise _not_found(wanted, words, present, kinds)


def exact_entry(wanted: str, home: str = "", kinds: Sequence[Kind] = KINDS) -> Entry:
    """The store, run or report at a path or URL, or with this full name; never by a beginning.

    Raises ConfigError otherwise. If `wanted` is the beginning of names, the error lists them.
    """
    present = list_entries(home, kinds)
    candidates = [entry for entry in present if entry.name == wanted]
    if not candidates:
        named = at_path(wanted, kinds)
        candidates = [] if named is None else [named]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        places = ", ".join(entry.location for entry in candidates)
        raise ConfigError(f"{wanted!r} must name one folder; got {places}. Give its path.")
    begun = [entry for entry in present if wanted and entry.name.startswith(wanted)]
    if begun or wanted == LATEST:
        begun = begun or sorted(present, key=written)[-1:]
        hint = f" It could mean {in_words(begun)}." if begun else ""
        raise ConfigError(
            f"rm needs the full name or the path of what to remove; got {wanted!r}.{hint}"
        )
    raise _not_found(wanted, _any_of(kinds), present, kinds)


def at_path(wanted: str, kinds: Sequence[Kind] = KINDS) -> Entry | None:
    """The store, run or report at a path or URL; None if there is none."""
    if SCHEME in wanted and STORE in kinds:
        return Entry(STORE, wanted.rstrip("/").rpartition("/")[2], wanted)
    for kind in kinds:
        if wanted and is_one(kind, Path(wanted)):
            return Entry(kind, Path(wanted).absolute().name, wanted)
    return None


def written(entry: Entry) -> float:
    """When the files directly in a folder were last written, in seconds since the epoch.

    0 for a URL, and for a folder that has just been removed.
    """
    if SCHEME in entry.location or not entry.path.is_dir():
        return 0.0
    times = [p.lstat().st_mtime for p in entry.path.iterdir() if p.is_file()]
    return max(times, default=0.0)


def in_words(entries: Sequence[Entry]) -> str:
    """Names with their kinds, the first few."""
    more = f" and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
    return ", ".join(f"{e.name} ({e.kind.word})" for e in entries[:SHOWN]) + more


def _any_of(kinds: Sequence[Kind]) -> str:
    """E.g. `store, run or report`."""
    *most, last = (kind.word for kind in kinds)
    return f"{', '.join(most)} or {last}" if most else last


def _not_found(
    wanted: str, words: str, present: Sequence[Entry], kinds: Sequence[Kind]
) -> TendrilError:
    names = {entry.name: entry for entry in present}
    near = [names[n] for n in difflib.get_close_matches(wanted, names, n=5, cutoff=0.4)]
    hint = f" (near names are {in_words(near)})" if near else ""
    error = kinds[0].error if len(kinds) == 1 else ConfigError
    return error(f"there is no {words} {wanted!r}{hint}. `tendril data ls` lists what there is.")
