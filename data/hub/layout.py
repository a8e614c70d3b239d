"""The files that are exchanged, and the list of them.

<address>/tendril.json      kind, name, and the XXH128 digest of every other file and of itself
<address>/README.md         the card, for people; it may be edited
<address>/...               the files of the run or store, under their own names

Nothing else may lie there, except a licence and the files in which git keeps its settings, and
folders that have a tendril.json of their own.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ..errors import (
    ConfigError,
    ExchangeError,
    RunDamagedError,
    StoreDamagedError,
    TendrilError,
)
from ..home import NETWORK, RUN, STORE, Kind
from ..store.atomic import changed_file, check_no_links, sealed, unsealed
from ..store.chunks import StoredArrays
from ..store.faults import metadata_faults, shard_faults
from ..store.folder import open_folder
from ..store.record import check_complete, check_identity, read_about
from .client import LIST

CARD, FORMAT = "README.md", 1
BESIDE = (CARD, ".gitattributes", ".gitignore", "LICENSE", "LICENSE.md", "LICENSE.txt")
CONFIG, RESULT = "config.json", "result.json"
RUN_FILES = (
    *(CONFIG, "dictionary.safetensors", "latents.safetensors"),
    *("metrics.csv", "evaluations.csv", RESULT),
)
ARRAYS = (
    *("activations", "scales", "norms", "statistics", "records", "labels", "valid", "input"),
    *("y", "x", "turn", "position", "token", "document", "role"),
)
STORE_FILE = re.compile(rf"(?:(?:{'|'.join(ARRAYS)})/)(?:[^/]+/)*(?:zarr\.json|c(?:/\d+)+)")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
KINDS = {"run": RUN, "store": STORE}


@final
@dataclass(frozen=True)
class Listed:
    """What tendril.json says: a run or a store, its name, and the digests of its files."""

    kind: Kind
    name: str
    digests: Mapping[str, str]


def files_of(kind: Kind, folder: Path) -> list[Path]:
    """The files of a run or store that are exchanged, all of them checked.

    The state of training stays behind. Raises ConfigError for symbolic links and for networks,
    RunDamagedError, StoreIncompleteError and StoreDamagedError.
    """
    check_no_links(folder)
    check_contents(kind, folder)
    if kind is RUN:
        return [folder / name for name in RUN_FILES if (folder / name).is_file()]
    return sorted(p for p in folder.rglob("*") if p.is_file() and is_store_file(folder, p))


def is_store_file(folder: Path, path: Path) -> bool:
    """True if a path in a store's folder is of the store's format."""
    return allowed(STORE, path.relative_to(folder).as_posix())


def allowed(kind: Kind, name: str) -> bool:
    """True if a run or store may have a file of this name."""
    if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name:
        return False
    if not name.isprintable():
        return False
    if kind is RUN:
        return name in RUN_FILES
    return name == STORE.marker or STORE_FILE.fullmatch(name) is not None


def check_contents(kind: Kind, folder: Path) -> None:
    """Raise the error of the kind unless the run or store is finished, and its files are those
    that were written, by the digests that it holds itself."""
    if kind is RUN:
        if not (folder / RESULT).is_file():
            raise RunDamagedError(
                f"the run must be finished; {folder} has no {RESULT}. Train it to its end first."
            )
        if (folder / NETWORK.marker).is_file():
            raise ConfigError(
                f"the run must be a dictionary; {folder} is a trained network, which cannot be "
                "pushed. Copy its folder instead."
            )
        _, digests = read_sealed(folder / RESULT)
        kept = {name: digest for name, digest in digests.items() if name in RUN_FILES}
        if fault := changed_file(folder, kept):
            raise RunDamagedError(f"{fault}. Train the run again, or pull it again.")
        return
    place = open_folder(str(folder))
    about = read_about(place)
    check_complete(place, about)
    check_identity(place, about)
    for found in metadata_faults(place).values():
        raise found
    arrays = StoredArrays(str(folder))
    sizes = place.sizes()
    for shard in range(arrays.layout.shards):
        for found in shard_faults(arrays, shard, sizes):
            raise found


def make_list(kind: Kind, name: str, files: Iterable[Path], folder: Path) -> bytes:
    """The content of tendril.json."""
    value = {"format": FORMAT, "kind": kind.word, "name": name}
    return sealed(value, files, folder)


def read_list(content: bytes, place: object) -> Listed:
    """What tendril.json says. Raises ExchangeError if it has changed, or lists what may not be."""
    try:
        value = json.loads(content)
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
        entries, digests = unsealed(value)
        if entries.get("format") != FORMAT:
            raise ValueError(f"its format is {entries.get('format')!r:.20}, not {FORMAT}")
        kind, name = KINDS[str(entries["kind"])], str(entries["name"])
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r:.60} is no name of a {kind.word}")
        if not digests or kind.marker not in digests:
            raise ValueError(f"it does not list {kind.marker}")
        for file, digest in digests.items():
            if not allowed(kind, file):
                raise ValueError(f"{file!r:.80} is no file of a {kind.word}")
            if not re.fullmatch(r"[0-9a-f]{32}", str(digest)):
                raise ValueError(f"the digest of {file} is not one")
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise ExchangeError(
            f"{LIST} of {place} must be the list that `tendril push` wrote; {_reason(error)}. "
            "Push it again."
        ) from error
    return Listed(kind, name, digests)


def check_names(listed: Listed, present: Iterable[str], place: object) -> None:
    """Raise ExchangeError unless just the listed files are there, and those of BESIDE."""
    names = set(present)
    own = {n.rpartition("/")[0] for n in names if n.endswith(f"/{LIST}")}
    others = {n for n in names if any(n.startswith(f"{folder}/") for folder in own)}
    extra = sorted(names - others - {LIST, *BESIDE} - set(listed.digests))
    if extra:
        raise ExchangeError(
            f"{place} must hold the files of one {listed.kind.word} only; it also holds "
            f"{extra[0]!r:.80}, which {LIST} does not list. Remove it there, or push to another "
            "folder."
        )
    missing = sorted(set(listed.digests) - names)
    if missing:
        raise ExchangeError(
            f"{place} must hold all files that {LIST} lists; {missing[0]} is missing. Push it "
            "again."
        )


def read_sealed(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A JSON object of a run, and the digests in it. Raises RunDamagedError."""
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
        return unsealed(value)
    except (ValueError, RecursionError) as error:
        raise RunDamagedError(
            f"{path} is damaged: {_reason(error)}. Train the run again."
        ) from error


def damaged(kind: Kind, fault: str) -> TendrilError:
    """The error for a file that is not what was pushed."""
    return (RunDamagedError if kind is RUN else StoreDamagedError)(fault)


def _reason(error: Exception) -> str:
    text = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return text.partition("\n")[0] or type(error).__name__
