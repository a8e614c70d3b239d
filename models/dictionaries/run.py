"""A finished run: its dictionary, how it was trained, and its figures."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from tendril.data.home import find_run

from .checkpoint import RESULT, load_dictionary, read_config, read_figures
from .sae import Stored


@final
@dataclass(frozen=True)
class Run:
    """A run's folder, read on demand."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name: `<name>-<12 hex digits>`."""
        return self.folder.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json: the training configuration, the store and the site."""
        return read_config(self.folder)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """result.json: FVU, L0 and the like on held-out vectors; empty while it trains."""
        return read_figures(self.folder) if (self.folder / RESULT).is_file() else {}

    @cached_property
    def dictionary(self) -> Stored:
        """The dictionary, for raw activations of the run's site."""
        return load_dictionary(self.folder)


def load_run(run: str | Path, home: str | None = None) -> Run:
    """The finished run called `run`: a path, a name in runs/, the beginning of just one name, or
    `latest`. Raises RunNotFoundError."""
    return Run(find_run(run, home))
