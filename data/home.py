"""Where stores, runs and reports lie, and which of them a name means.

One rule serves every command and the Python API. A name is a path, a full name in the home's
folder, the beginning of just one name there, or `latest`. A beginning that fits several is an
error that lists them.
"""

import difflib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

from .errors import (
    ConfigError,
    ReportNotFoundError,
    RunNotFoundError,
    StoreNotFoundError,
    TendrilError,
)

LATEST = "latest"
SCHEME = "://"
HUB = "hf://"
SHOWN = 8  # names that an error lists


@final
@dataclass(frozen=True)
class Kind:
    """What stores, runs and reports differ in: where they lie, what marks one, how it is made.

    `marker` is the file whose presence makes a folder one of this kind; the newest is the one
    whose marker was written last.
    """

    word: str
    folder: str
    marker: str
    error: type[TendrilError]
    made_by: str


STORE = Kind("store", "store", "zarr.json", StoreNotFoundError, "`tendril harvest --help`")
RUN = Kind("run", "runs", "dictionary.safetensors", RunNotFoundError, "`tendril train --help`")
NETWORK = Kind(  # a run whose result is a network, which is a subject
    "trained network",
    "runs",
    "network.safetensors",
    RunNotFoundError,
    "`tendril train classifier --help`",
)
REPORT = Kind("report", "reports", "result.json", ReportNotFoundError, "`tendril study --help`")
KINDS = (STORE, RUN, REPORT)


def home_folder(home: str | None = None) -> Path:
    """The folder that holds `store/`, `runs/` and `reports/`: flag, `$TENDRIL_HOME`, or here.

    Raises ConfigError for a URL: only stores can lie there.
    """
    place = home or os.environ.get("TENDRIL_HOME") or "."
    if SCHEME in place:
        raise ConfigError(
            f"--home must be a folder on this machine for runs and reports; got {place}. Only "
            "stores can lie at a URL: name one with --store."
        )
    return Path(place)


def folder_of(kind: Kind, home: str | None = None) -> Path:
    """Where a home keeps its stores, runs or reports."""
    return home_folder(home) / kind.folder


def stores_folder(home: str | None = None) -> Path:
    """Where stores are kept."""
    return folder_of(STORE, home)


def runs_folder(home: str | None = None) -> Path:
    """Where trained dictionaries are kept."""
    return folder_of(RUN, home)


def reports_folder(home: str | None = None) -> Path:
    """Where reports are kept."""
    return folder_of(REPORT, home)


def store_location(name: str, home: str | None = None) -> str:
    """Where a store of that name is written: a path, or a URL where the home is one."""
    home = home or os.environ.get("TENDRIL_HOME") or ""
    if home.startswith(("http://", "https://")):
        raise ConfigError(
            f"--home must be a folder or an object store (s3://bucket/folder); got {home}, a web "
            "server, which takes no files."
        )
    if SCHEME not in home:
        return str(stores_folder(home) / name)
    import fsspec  # a tenth of a second, which local homes need not spend

    scheme, _, rest = home.partition(SCHEME)
    known = fsspec.available_protocols()
    if scheme not in known or not rest.strip("/"):
        near = difflib.get_close_matches(scheme, known, n=1)
        hint = f" (near it: {near[0]})" if near else ""
        raise ConfigError(
            f"--home must be a folder or a URL that fsspec knows, such as s3://bucket/folder; got "
            f"{home}{hint}."
        )
    return f"{home.rstrip('/')}/store/{name}"


def entries(folder: Path, marker: str) -> list[Path]:
    """The folders in `folder` that hold a file called `marker`, by name."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if (p / marker).is_file())


def newest(folders: list[Path], marker: str) -> Path:
    """The folder whose marker was written last."""
    return max(folders, key=lambda p: (p / marker).stat().st_mtime_ns)


def find(kind: Kind, wanted: str | Path, home: str | None = None) -> Path:
    """The folder of the store, run or report called `wanted`.

    Raises the error of the kind where there is none, with the names that come near, and where
    `wanted` is the beginning of several, with all of these.
    """
    name = str(wanted)
    if name and (Path(name) / kind.marker).is_file():
        return Path(name)
    folder = folder_of(kind, home)
    present = entries(folder, kind.marker)
    if name == LATEST and present:
        return newest(present, kind.marker)
    chosen = set(fitting(name, [p.name for p in present]))
    candidates = [p for p in present if p.name in chosen]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise kind.error(
            f"{name!r} must name one {kind.word}; in {folder} it fits {len(candidates)}: "
            f"{_listed(candidates, kind.marker)}. Give more of the name."
        )
    if kind is RUN:
        _refuse_network(name, home)
    near = difflib.get_close_matches(name, [p.name for p in present], n=5, cutoff=0.4)
    holds = f"near names are {', '.join(near)}" if near else _holds(present)
    raise kind.error(
        f"there is no {kind.word} {name!r}, as a path or in {folder} ({holds}). `tendril data ls` "
        f"lists what there is; {kind.made_by} says how to make one."
    )


def _refuse_network(name: str, home: str | None) -> None:
    """Raise RunNotFoundError, saying what to do, if a name of a dictionary is that of a network."""
    present = [p.name for p in entries(folder_of(NETWORK, home), NETWORK.marker)]
    if name and ((Path(name) / NETWORK.marker).is_file() or fitting(name, present)):
        raise RunNotFoundError(
            f"the run must be a dictionary; {name} is a trained network. Record its activations "
            f"with `tendril harvest images --subject {name}`, and train a dictionary on them."
        )


def fitting(wanted: str, names: list[str]) -> list[str]:
    """The names that `wanted` may mean: itself, those that differ only in the digest at their
    end, or else all that begin with it."""
    if wanted in names:
        return [wanted]
    begun = [name for name in names if wanted and name.startswith(wanted)]
    return [name for name in begun if name.rpartition("-")[0] == wanted] or begun


def _holds(present: list[Path]) -> str:
    names = [p.name for p in present]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"it holds {', '.join(names[:SHOWN])}{more}" if names else "it holds none"


def _listed(candidates: list[Path], marker: str) -> str:
    """Names with their age, newest first."""
    ages = {p: time.time() - (p / marker).stat().st_mtime for p in candidates}
    ranked = sorted(candidates, key=lambda p: ages[p])
    shown = [f"{p.name} ({age_in_words(ages[p])} old)" for p in ranked[:SHOWN]]
    more = f" and {len(ranked) - SHOWN} more" if len(ranked) > SHOWN else ""
    return ", ".join(shown) + more


def age_in_words(seconds: float) -> str:
    """A duration in its largest unit, e.g. `3 hours`."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size or size == 1:
            count = max(0, int(seconds // size))
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError("the last unit always fits")


def find_store(wanted: str | Path, home: str | None = None) -> str:
    """The path or URL of the store called `wanted`, complete or not. Raises StoreNotFoundError."""
    name = str(wanted)
    if SCHEME in name:
        return name
    if SCHEME in store_location(name, home):
        return store_location(name, home)
    return str(find(STORE, name, home))


def find_run(wanted: str | Path, home: str | None = None) -> Path:
    """The folder of the finished run called `wanted`; of one on the hub (hf://user/repository), in
    the hub's cache. Raises RunNotFoundError, and HubError for the hub."""
    if str(wanted).startswith(HUB):
        from .hub.client import fetched_run  # not needed for a run on this machine

        return fetched_run(str(wanted))
    return find(RUN, wanted, home)


def network_place(subject: str, home: str | None = None) -> str:
    """A subject's name as `load_subject` takes it: the folder of the run where it names a network
    that was trained here, by a full name, the beginning of just one, or a path; else unchanged.

    Raises RunNotFoundError for the beginning of several.
    """
    if not subject or ":" in subject:
        return subject
    present = [path.name for path in entries(folder_of(NETWORK, home), NETWORK.marker)]
    known = (Path(subject) / NETWORK.marker).is_file() or fitting(subject, present)
    return str(find(NETWORK, subject, home)) if known else subject


def find_report(wanted: str | Path, home: str | None = None) -> Path:
    """The folder of the finished report called `wanted`. Raises ReportNotFoundError."""
    return find(REPORT, wanted, home)
