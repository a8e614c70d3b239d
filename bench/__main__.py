"""python -m bench WHAT: a thing and its yardstick, in turns, in one process."""

from collections.abc import Mapping

import tyro

from data.command import run_command

from .harvest import HarvestBench, measure


def main() -> Mapping[str, object]:
    """Parse, measure, and tell the ratios."""
    bench = tyro.extras.subcommand_cli_from_dict({"harvest": HarvestBench}, prog="python -m bench")
    return measure(bench)


if __name__ == "__main__":
    run_command(main)
