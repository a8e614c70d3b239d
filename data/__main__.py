"""tendril data ls | info STORE | verify STORE | stats STORE | rm STORE"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import tyro

from .cli import as_json, run_command
from .errors import ConfigError

Name = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="STORE",
        help="A path, a URL, a name in store/, one without its digest, the beginning of just one, "
        "or latest.",
    ),
]
Home = Annotated[
    str, tyro.conf.arg(help="Folder or URL that holds store/; $TENDRIL_HOME, or here, by default.")
]
Json = Annotated[
    bool, tyro.conf.arg(help="Print one JSON object, on the last line of stdout, and no table.")
]
Yes = Annotated[bool, tyro.conf.arg(help="Do not ask.")]
Site = Annotated[str, tyro.conf.arg(help="One site; all by default.")]
Told = Mapping[str, Any] | None


def ls(home: Home = "", json: Json = False) -> Told:
    """Every store of a home, complete or not: rows, sites, size, and how far it has come."""
    from .home import store_location
    from .store import inspect as report
    from .store import tables as table

    found = report.list_stores(home)
    place = store_location("", home or None).rstrip("/")
    return _told({"stores": found}, json, lambda: table.stores(found, place))


def info(store: Name, home: Home = "", json: Json = False) -> Told:
    """What a store holds: rows and bytes of each site, spec, origin, unreadable inputs."""
    from .home import find_store
    from .store import inspect as report
    from .store import tables as table

    about = report.describe_store(find_store(store, home))
    return _told(about, json, lambda: table.store(about))


def verify(store: Name, home: Home = "", json: Json = False) -> Told:
    """Check every chunk and file, and every valid row: is it finite, is its norm huge?

    Lists all faults, and leaves with status 2 where there are any."""
    from .home import find_store
    from .store import tables as table
    from .store.verify import verify_store

    location = find_store(store, home)
    about = dataclasses.asdict(verify_store(location, progress=sys.stderr.isatty()))
    result = _told(about, json, lambda: table.verified(about))
    if about["faults"]:
        if result is not None:
            print(as_json(result), flush=True)
        table.refuse(about)
    return result


def stats(store: Name, site: Site = "", home: Home = "", json: Json = False) -> Told:
    """Means, variances, norms and zeros of the valid rows, and channels that are dead."""
    from .home import find_store
    from .store import inspect as report
    from .store import tables as table

    about = report.summarise(find_store(store, home), site)
    return _told(about, json, lambda: table.statistics(about))


def rm(store: Name, yes: Yes = False, home: Home = "", json: Json = False) -> Told:
    """Remove a store, complete or not. Asks first, and refuses while a harvest writes it."""
    from .home import find_store
    from .store import inspect as report
    from .store import tables as table
    from .store.folder import SCHEME, open_folder

    location = find_store(store, home)
    folder = open_folder(location)
    report.check_ours(folder)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"{location} would be removed for good; say --yes if it should be.")
        alone = (
            " (at a URL nothing tells whether a harvest writes it)" if SCHEME in location else ""
        )
        print(f"Remove {location}{alone}? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ConfigError(f"{location} is left as it is.")
    done = report.remove_store(location)
    return _told(done, json, lambda: f"removed {location}, {table.size(done['bytes'])}")


def _told(about: Mapping[str, Any], json: bool, text: Callable[[], str]) -> Told:
    """For JSON the values; else they are printed as text."""
    if json:
        return about
    print(text(), flush=True)
    return None


def main(arguments: Sequence[str] | None = None) -> Told:
    """Parse, then do it; nothing heavy is imported before the arguments are understood."""
    told: Told = tyro.extras.subcommand_cli_from_dict(
        {"ls": ls, "info": info, "verify": verify, "stats": stats, "rm": rm},
        args=arguments,
        prog="tendril data",
        description="Look at stores, check them, remove them.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return told


if __name__ == "__main__":
    run_command(main)
