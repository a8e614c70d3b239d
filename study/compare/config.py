"""Which runs to compare. No torch here: `--help` must be quick."""

from dataclasses import dataclass

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
