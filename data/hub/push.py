"""Push a run or a store to the hub, or to a folder that machines share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cli import Outcome
from ..errors import ConfigError, ExchangeError
from ..home import RUN, SCHEME, STORE, Kind
from ..listing.entries import find_entry
from .address import is_hub
from .card import card, check_license
from .client import LIST
from .layout import BESIDE, CARD, NAME, files_of, make_list, read_list
from .places import Content, Place, place_of


def find_source(wanted: str, kind: str = "", home: str = "") -> tuple[Kind, Path]:
    """The run or store called `wanted`. Raises ConfigError for one at a URL, or of another name."""
    kinds = [k for k in (RUN, STORE) if kind in ("", k.word)]
    if not kinds:
        raise ConfigError(f"--kind must be run or store; got {kind!r}.")
    entry = find_entry(wanted, home, kinds)
    if SCHEME in entry.location:
        raise ConfigError(
            f"what is pushed must lie on this machine; {entry.location} is a URL. Copy it first."
        )
    folder = entry.path.absolute()
    if not NAME.fullmatch(folder.name):
        raise ConfigError(
            f"the name of a {entry.kind.word} that is pushed must consist of letters, digits, "
            f"dots, dashes and underscores; got {folder.name!r}. Rename the folder."
        )
    return entry.kind, folder


def push(
    kind: Kind,
    folder: Path,
    address: str,
    *,
    commands: Sequence[str] = (),
    license: str = "",
    private: bool = False,
    overwrite: bool = False,
) -> Outcome:
    """Write a run or store, its list of files and its card to an address, or do nothing.

    Where the same lies there already nothing is written. Raises HubError, ExchangeError where
    something else lies there and not `overwrite`, and the errors of a damaged run or store.
    """
    check_license(license)
    place = place_of(address, private=private)
    files = files_of(kind, folder)
    listed = make_list(kind, folder.name, files, folder)
    present = place.names()
    result: dict[str, Any] = {
        "pushed": str(place),
        "kind": kind.word,
        "name": folder.name,
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }
    same = f"{kind.word} {folder.name}, {len(files)} files, {result['bytes'] / 1e6:,.1f} MB"
    following = _next(place, address)
    if present is not None and LIST in present and place.read(LIST) == listed and not overwrite:
        return Outcome(result | {"reused": True}, f"Already at {place}: {same}.", following)
    obsolete = _obsolete(place, present, overwrite)
    content: dict[str, Content] = {p.relative_to(folder).as_posix(): p for p in files}
    content[LIST] = listed
    shown = str(place) if is_hub(address) else "FOLDER"
    content[CARD] = card(kind, folder.name, folder, commands, license, shown).encode()
    place.send(content, [n for n in obsolete if n not in content], f"{kind.word} {folder.name}")
    return Outcome(result | {"reused": False}, f"Pushed to {place}: {same}.", following)


def _obsolete(place: Place, present: Sequence[str] | None, overwrite: bool) -> list[str]:
    """The files at a place that a push replaces. Raises ExchangeError where they must stay."""
    if present is None:
        return []
    if LIST not in present:
        strange = [name for name in present if name not in BESIDE and f"/{LIST}" not in name]
        nested = {n.rpartition("/")[0] for n in present if n.endswith(f"/{LIST}")}
        strange = [n for n in strange if not any(n.startswith(f"{f}/") for f in nested)]
        if strange:
            raise ExchangeError(
                f"{place} must be empty, or hold what `tendril push` wrote; it holds "
                f"{strange[0]!r:.80}. Push to another folder."
            )
        return []
    listed = read_list(place.read(LIST), place)
    if not overwrite:
        raise ExchangeError(
            f"{place} must be empty, or hold this run or store; it holds the {listed.kind.word} "
            f"{listed.name}. Push to another folder, or add --overwrite."
        )
    return sorted(set(listed.digests) & set(present))


def _next(place: Place, address: str) -> str:
    return f"tendril pull {place if is_hub(address) else address}"
