"""Pull a run or a store from the hub, or from a folder that machines share."""

from pathlib import Path
from typing import Any

from ..cli import Outcome
from ..errors import ConfigError, ExchangeError
from ..home import RUN, folder_of, home_folder
from ..store.atomic import (
    changed_file,
    check_no_links,
    check_not_link,
    digest_of,
    locked,
    sync,
)
from .client import LIST
from .layout import Listed, check_contents, check_names, damaged, read_list
from .places import Place, place_of

STAGING = ".pulling"  # a folder of this name in runs/ or store/ holds what is on its way


def pull(address: str, home: str = "") -> Outcome:
    """Copy the run or store at an address into a home, or return the one that is there.

    Every file is checked against its digest before anything is visible under its name; what an
    interrupted pull has copied is used by the next one. Raises HubError, ExchangeError,
    RunDamagedError, StoreDamagedError, and ConfigError if another run or store has the name.
    """
    place = place_of(address)
    listed = list_at(place)
    home_folder(home)
    target = folder_of(listed.kind, home) / listed.name
    check_not_link(target)
    reused = target.exists()
    if reused:
        if fault := changed_file(target, listed.digests):
            raise ConfigError(
                f"{target} must not exist, or be what is pulled; {fault}. Move it away, or give "
                "another --home."
            )
    else:
        _copy(place, listed, target)
    size = sum((target / name).stat().st_size for name in listed.digests)
    result: dict[str, Any] = {
        listed.kind.word: str(target),
        "from": str(place),
        "files": len(listed.digests),
        "bytes": size,
        "reused": reused,
    }
    done = "Already there" if reused else "Pulled"
    ending = f" --home {home}" if home else ""
    return Outcome(
        result,
        f"{done}: {listed.kind.word} {listed.name}, {len(listed.digests)} files, "
        f"{size / 1e6:,.1f} MB; {target}",
        f"tendril study features --run {listed.name}{ending}"
        if listed.kind is RUN
        else f"tendril train topk --store {listed.name}{ending}",
    )


def list_at(place: Place) -> Listed:
    """What lies at a place. Raises HubError and ExchangeError."""
    names = place.names()
    if names is None or LIST not in names:
        inner = sorted({n.rpartition("/")[0] for n in names or () if n.endswith(f"/{LIST}")})
        hint = (
            f" It has the folders {', '.join(inner[:8])}: add one to the address." if inner else ""
        )
        raise ExchangeError(
            f"{place} must hold {LIST}, which `tendril push` writes; there is none, or no such "
            f"place, or it may not be read.{hint or ' Check the address, and HF_TOKEN.'}"
        )
    listed = read_list(place.read(LIST), place)
    check_names(listed, names, place)
    return listed


def _copy(place: Place, listed: Listed, target: Path) -> None:
    """Fill a hidden folder, check it, and give it its name."""
    staging = target.parent / STAGING / listed.name
    check_not_link(staging.parent)
    check_not_link(staging)
    staging.mkdir(parents=True, exist_ok=True)
    with locked(staging):
        check_no_links(staging)
        for path in staging.rglob("*"):
            name = path.relative_to(staging).as_posix()
            if path.is_file() and name not in listed.digests and not name.startswith(".download/"):
                path.unlink()
        place.fetch(_wrong(staging, listed), staging)
        if wrong := _wrong(staging, listed):  # on the way, or in a cache
            place.fetch(wrong, staging, again=True)
        check_no_links(staging)
        if fault := changed_file(staging, listed.digests):
            _wrong(staging, listed)
            raise damaged(
                listed.kind, f"{fault} from the one in {LIST} of {place}. Pull again, or push anew."
            )
        check_contents(listed.kind, staging)
        for path in staging.rglob("*"):
            sync(path)
        staging.rename(target)
        sync(target.parent)
    if not any(staging.parent.iterdir()):
        staging.parent.rmdir()


def _wrong(staging: Path, listed: Listed) -> list[str]:
    """The files that are not there yet, or have another digest; these are removed."""
    found = []
    for name, digest in listed.digests.items():
        path = staging / name
        if not path.is_file() or path.is_symlink() or digest_of(path) != digest:
            path.unlink(missing_ok=True)
            found.append(name)
    return found
