"""A second writer on a store: python -m tests.helpers.lock STORE."""

import sys
from pathlib import Path

from tendril.data.cli import run_command
from tendril.data.store.atomic import locked


def main() -> None:
    """Take the lock, as a harvest does."""
    with locked(Path(sys.argv[1])):
        pass


if __name__ == "__main__":
    run_command(main)
