"""Where stores, runs and reports lie, and how a name given by a person becomes one of them."""

import difflib
import os
import re
from pathlib import Path

from .errors import ConfigError, StoreNotFoundError

LATEST = "latest"
STORE_MARKER = "zarr.json"
SCHEME = "://"


def home_folder(home: str | None = None) -> Path:
    """The folder that holds `store/`, `runs/` and `reports/`: flag, `$TENDRIL_HOME`, or here."""
    return Path(home or os.environ.get("TENDRIL_HOME") or ".")


def stores_folder(home: str | None = None) -> Path:
    """Where harvests are kept."""
    return home_folder(home) / "store"


def store_location(name: str, home: str | None = None) -> str:
    """Where a store of that name is written: a path, or a URL where the home is one."""
    home = home or os.environ.get("TENDRIL_HOME") or ""
    if home.startswith(("http://", "https://")):
        raise ConfigError(
            f"--home {home} is a web server, which takes no files; harvest to a folder or to an "
            "object store (s3://bucket/folder)."
        )
    return f"{home.rstrip('/')}/store/{name}" if "://" in home else str(stores_folder(home) / name)


def runs_folder(home: str | None = None) -> Path:
    """Where trained dictionaries are kept."""
    return home_folder(home) / "runs"


def reports_folder(home: str | None = None) -> Path:
    """Where pages of findings are kept."""
    return home_folder(home) / "reports"


def resolve(wanted: str, folder: Path, marker: str) -> Path | None:
    """The folder meant by `wanted`, or None.

    `wanted` is a path, a name in `folder`, a name without its digest (then the newest of
    that name), the beginning of just one name, or `latest`. `marker` is the file that tells a
    finished one, e.g. `zarr.json`; the newest is the one whose marker was written last.
    """
    if wanted and (Path(wanted) / marker).is_file():
        return Path(wanted)
    present = entries(folder, marker)
    if wanted == LATEST:
        return _newest(present, marker)
    for fits in (re.escape(wanted), rf"{re.escape(wanted)}-[0-9a-f]{{12}}"):
        named = [p for p in present if re.fullmatch(fits, p.name)]
        if named:
            return _newest(named, marker)
    beginning = [p for p in present if wanted and p.name.startswith(wanted)]
    return beginning[0] if len(beginning) == 1 else None


def _newest(folders: list[Path], marker: str) -> Path | None:
    return max(folders, key=lambda p: (p / marker).stat().st_mtime_ns, default=None)


def entries(folder: Path, marker: str) -> list[Path]:
    """The folders in `folder` that hold a file called `marker`, by name."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if (p / marker).is_file())


def find_store(wanted: str, home: str | None = None) -> str:
    """The path or URL of the store that a person calls `wanted`, complete or not: a URL, or
    what `resolve` knows. Raises StoreNotFoundError, with near names."""
    if SCHEME in wanted:
        return wanted
    if SCHEME in store_location(wanted, home):
        return store_location(wanted, home)
    folder = stores_folder(home)
    path = resolve(wanted, folder, STORE_MARKER)
    if path is not None:
        return str(path)
    names = [p.name for p in entries(folder, STORE_MARKER)]
    fitting = [name for name in names if wanted and name.startswith(wanted)]
    if fitting:
        raise StoreNotFoundError(
            f"{wanted!r} is the beginning of {len(fitting)} stores in {folder} "
            f"({', '.join(fitting)}); give more of the name."
        )
    near = difflib.get_close_matches(wanted, names, n=5, cutoff=0.4)
    there = f"near names are {', '.join(near)}" if near else f"it holds {', '.join(names[:5])}"
    raise StoreNotFoundError(
        f"there is no store {wanted!r}, as a path or in {folder} "
        f"({there if names else 'it holds none'}); `tendril data ls` lists them, and "
        "`make harvest` makes one."
    )
