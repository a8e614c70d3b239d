"""What can be done with runs that are there. No torch here: `--help` must be quick."""

from dataclasses import dataclass
from typing import Any

import tyro


@dataclass(frozen=True)
class CompareConfig:
    """Which runs to compare."""

    runs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Two runs or more: paths, names in runs/, or the beginnings of names."""
    name: str = "compare"
    """First part of the report's name."""
    home: str = ""
    """Folder that holds runs/ and reports/; empty: $TENDRIL_HOME, or here."""


def compare() -> CompareConfig:
    """Compare runs: which latents they share, how stable they are, which are dense.

    Pairs the latents of each two runs (Hungarian method), counts those that are shared, finds
    dense latents and their antipodal pairs, and makes a page in reports/. Four runs of 768
    latents take seconds; time grows with the cube of the latents.
    """
    return CompareConfig()


COMMANDS = {"compare": compare}
Command = CompareConfig


def run_one(config: Command) -> dict[str, Any]:
    """Do what a command's config says; what it imports is heavy."""
    from .compare import compare_runs

    return compare_runs(config)
