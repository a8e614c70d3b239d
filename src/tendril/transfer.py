"""`tendril push NAME ADDRESS` and `tendril pull ADDRESS`: runs and stores to and from others."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from .data.cli import Outcome
from .data.errors import TendrilError

Name = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="NAME", help="A run or store: a path, a name, the beginning of one, or latest."
    ),
]
Address = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="ADDRESS",
        help="hf://user/repository (hf://datasets/... for a data set), with @revision and /folder "
        "if needed; or a folder.",
    ),
]
Home = Annotated[
    str,
    tyro.conf.arg(
        help="Folder that holds store/ and runs/; by default $TENDRIL_HOME, or the current folder."
    ),
]
Kind = Annotated[str, tyro.conf.arg(help="run or store, if the name fits both.")]
License = Annotated[str, tyro.conf.arg(help="Licence for the card, e.g. mit; none by default.")]
Private = Annotated[bool, tyro.conf.arg(help="Make a new repository private.")]
Overwrite = Annotated[bool, tyro.conf.arg(help="Replace what was pushed to the address before.")]


def push(
    name: Name,
    address: Address,
    kind: Kind = "",
    license: License = "",
    private: Private = False,
    overwrite: Overwrite = False,
    home: Home = "",
) -> Outcome:
    """Push a finished run or a store to the Hugging Face hub, or to a folder.

    Writes the files, a list of their digests and a card with the figures and the commands that
    made it, in one commit. The hub's token is read from HF_TOKEN or `hf auth login`, its address
    from HF_ENDPOINT. Does nothing where the same lies there already.
    """
    from .data.hub.push import find_source
    from .data.hub.push import push as push_folder

    found, folder = find_source(name, kind, home)
    return push_folder(
        found,
        folder,
        address,
        commands=commands_of(found.word, folder),
        license=license,
        private=private,
        overwrite=overwrite,
    )


def pull(address: Address, home: Home = "") -> Outcome:
    """Pull a run or a store from the Hugging Face hub, or from a folder, into a home.

    Every file is checked against its digest before the run or store appears under its name. A pull
    that was interrupted continues. Does nothing where the same is there already.
    """
    from .data.hub.pull import pull as pull_address

    return pull_address(address, home)


COMMANDS: dict[str, Callable[..., Outcome]] = {"push": push, "pull": pull}


def main(command: str, arguments: Sequence[str]) -> Outcome:
    """Parse, then push or pull."""
    made: Outcome = tyro.cli(
        COMMANDS[command],
        args=list(arguments),
        prog=f"tendril {command}",
        description=inspect.getdoc(COMMANDS[command]),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return made


def commands_of(kind: str, folder: Path) -> list[str]:
    """The commands that make a run or store again, as far as they are on record."""
    if kind == "store":
        return list(filter(None, [harvest_command_of(folder)]))
    from .models.dictionaries.checkpoint import CONFIG, RESULT, check_files, read_json
    from .train.command import store_of, train_command

    if (folder / RESULT).is_file():  # else it is said that the run is not finished
        check_files(folder, CONFIG)
    trained = read_json(folder / CONFIG)
    store = store_of(folder, trained)
    return list(filter(None, [harvest_command_of(store) if store else "", train_command(trained)]))


def harvest_command_of(store: Path) -> str:
    """The command of a store; empty where the store cannot be read."""
    from .data.store.reader import open_store
    from .harvest.command import harvest_command

    try:
        return harvest_command(open_store(store))
    except (TendrilError, KeyError, TypeError):
        return ""
