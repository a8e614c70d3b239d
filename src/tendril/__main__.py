"""The command: `tendril harvest|train|study|data|bench ...`, also `python -m tendril ...`."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from .data.cli import Outcome, run_command
from .data.errors import ConfigError

STAGES = {
    "harvest": "inputs + a network -> a store of activations",
    "train": "a store -> a sparse dictionary (a run)",
    "study": "a run -> a report: a page of findings, tables and figures",
    "data": "list, describe, verify and remove stores, runs and reports",
    "bench": "measure speed, each beside its yardstick",
}
TRANSFER = {
    "push": "a run or store -> the Hugging Face hub, or a folder",
    "pull": "the Hugging Face hub, or a folder -> a run or store",
}
STOPPED = {
    "push": "stopped. Nothing was written there. The same command starts again.",
    "pull": "stopped. The same command continues with the files that are still missing.",
    "harvest": "stopped. The same command continues after the last finished shard.",
    "train": "stopped. The same command continues from the last checkpoint, if there is one.",
    "study": "stopped. The same command starts the study again.",
}
HELP = ("-h", "--help")


def main() -> NoReturn:
    """Run one stage and leave with its exit status."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in HELP:
        print(usage())
        sys.exit(0)
    run_command(lambda: run_stage(arguments), STOPPED.get(arguments[0], "stopped."))


def run_stage(arguments: Sequence[str]) -> Outcome | Mapping[str, object] | None:
    """Run the stage that the first argument names. Imports no other stage."""
    stage, *rest = arguments
    if stage in TRANSFER:
        from .transfer import main as transfer

        return transfer(stage, rest)
    if stage not in STAGES:
        raise ConfigError(
            f"the first word must be one of {', '.join((*STAGES, *TRANSFER))}; got {stage!r}. "
            "`tendril --help` says what each does."
        )
    made: Outcome | Mapping[str, object] | None = import_module(f"tendril.{stage}.__main__").main(
        rest
    )
    return made


def usage() -> str:
    """What `tendril --help` prints."""
    stages = "\n".join(
        f"  tendril {name:<8} {text}" for name, text in {**STAGES, **TRANSFER}.items()
    )
    return (
        "usage: tendril STAGE ... [--help]\n\n"
        "Harvest activations of a network once, train sparse dictionaries on them, study their "
        f"features.\n\n{stages}\n\n"
        "Each stage lists its recipes with --help, e.g. `tendril harvest --help`; each recipe "
        "lists its flags,\ne.g. `tendril harvest images --help`. Stores, runs and reports lie in "
        "store/, "
        "runs/ and reports/\nhere, or under --home or $TENDRIL_HOME."
    )


if __name__ == "__main__":
    main()
