"""tendril data ls | info NAME | rm NAME | verify STORE | stats STORE"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import tyro

from .cli import as_json, printable, run_command
from .errors import ConfigError

KindWord = Literal["store", "run", "report"]
Kinds = Annotated[
    tuple[Literal["stores", "runs", "reports", "store", "run", "report"], ...],
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="[KIND ...]", help="stores, runs, reports.", help_behavior_hint="(default: all)"
    ),
]
Name = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="NAME",
        help="A path, the URL of a store, a name, one without its digest, the beginning of a "
        "single name, or latest.",
    ),
]
FullName = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="NAME", help="A full name, a path, or the URL of a store."),
]
StoreName = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="STORE",
        help="A path, a URL, a name, one without its digest, the beginning of a single name, or "
        "latest.",
    ),
]
Only = Annotated[
    KindWord | None,
    tyro.conf.arg(
        name="kind", metavar="KIND", help="store, run or report, if the name fits several."
    ),
]
Home = Annotated[
    str,
    tyro.conf.arg(
        help="Folder that holds store/, runs/ and reports/, or a URL that holds store/. "
        "$TENDRIL_HOME by default, else the current folder."
    ),
]
Json = Annotated[
    bool, tyro.conf.arg(help="Print one JSON object on the last line of stdout, and no text.")
]
Yes = Annotated[bool, tyro.conf.arg(help="Do not ask.")]
Site = Annotated[str, tyro.conf.arg(help="One site; all by default.")]
Result = Mapping[str, Any] | None


def ls(kinds: Kinds = (), home: Home = "", json: Json = False) -> Result:
    """List stores, runs and reports: name, what it is, size, age and state, newest first."""
    from .home import home_folder
    from .listing import tables
    from .listing.describe import overview
    from .listing.entries import list_entries, written

    chosen = tables.made_of(kinds)
    entries = sorted(list_entries(home, chosen), key=written, reverse=True)
    found = [overview(entry) for entry in entries]
    by_kind = {
        f"{kind.word}s": [entry for entry in found if entry["kind"] == kind.word] for kind in chosen
    }
    place = home if "://" in home else str(home_folder(home))
    return _result(by_kind, json, lambda: tables.listing(found, chosen, place))


def info(name: Name, only: Only = None, home: Home = "", json: Json = False) -> Result:
    """Describe a store, a run or a report: its configuration, figures and files.

    Of a store also rows and bytes of each site, its origin, and inputs that could not be read.
    """
    from .listing import tables
    from .listing.describe import describe
    from .listing.entries import find_entry

    about = describe(find_entry(name, home, tables.made_of([only] if only else [])))
    return _result(about, json, lambda: tables.description(about))


def rm(
    name: FullName, only: Only = None, yes: Yes = False, home: Home = "", json: Json = False
) -> Result:
    """Remove a store, a run or a report, finished or not, by its full name.

    Asks first. Refuses the beginning of a name, and a folder that another process is writing.
    """
    from .home import STORE, folder_of
    from .listing import tables
    from .listing.entries import exact_entry
    from .listing.remove import check_removable, remove_entry
    from .store.folder import sweep_beside

    sweep_beside(folder_of(STORE, home) / name)  # what a killed removal left
    entry = exact_entry(name, home, tables.made_of([only] if only else []))
    check_removable(entry)
    if not yes:
        _ask(entry, home)
    removed = remove_entry(entry)
    return _result(removed, json, lambda: tables.removal(removed))


def _ask(entry: Any, home: str) -> None:
    """Ask whether to remove an entry. Raises ConfigError unless the answer is yes."""
    from .home import SCHEME, STORE
    from .listing.remove import runs_on

    if not sys.stdin.isatty():
        raise ConfigError(
            f"rm asks before it removes {entry.location}, and stdin is not a terminal. Add --yes "
            "to remove it without asking."
        )
    remarks = []
    if SCHEME in entry.location:
        remarks.append("at a URL, where nothing shows whether a harvest is writing it")
    elif entry.kind is STORE and (count := runs_on(entry, home)):
        remarks.append(f"{count} {'run was' if count == 1 else 'runs were'} trained on it")
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    question = f"Remove the {entry.kind.word} {entry.location}{remark}? [y/N] "
    print(printable(question), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{entry.location} was not removed.")


def verify(store: StoreName, home: Home = "", json: Json = False) -> Result:
    """Check a store: every checksum and digest, every valid row, and the statistics.

    Lists all faults, and norm outliers. The exit status is 2 if there are faults.
    """
    from .home import find_store
    from .store import tables
    from .store.verify import verify_store

    location = find_store(store, home)
    about = dataclasses.asdict(verify_store(location, progress=sys.stderr.isatty()))
    result = _result(about, json, lambda: tables.verified(about))
    if about["faults"]:
        if result is not None:
            print(as_json(result), flush=True)
        tables.refuse(about)
    return result


def stats(store: StoreName, site: Site = "", home: Home = "", json: Json = False) -> Result:
    """Print means, variances, norms and zeros over the valid rows of a store, and dead channels."""
    from .home import find_store
    from .store import inspect, tables

    about = inspect.summarise(find_store(store, home), site)
    return _result(about, json, lambda: tables.statistics(about))


def _result(about: Mapping[str, Any], json: bool, text: Callable[[], str]) -> Result:
    """The values for --json; otherwise the text is printed."""
    if json:
        return about
    print(printable(text()), flush=True)
    return None


def main(arguments: Sequence[str] | None = None) -> Result:
    """Parse the arguments, then import what the command needs and run it."""
    result: Result = tyro.extras.subcommand_cli_from_dict(
        {"ls": ls, "info": info, "rm": rm, "verify": verify, "stats": stats},
        args=arguments,
        prog="tendril data",
        description="List, describe, check and remove stores, runs and reports.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return result


if __name__ == "__main__":
    run_command(main)
