"""A finished run: its dictionary, how it was trained, and its figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from tendril.data.cards import Card
from tendril.data.cli import Shown
from tendril.data.home import find_run

from .checkpoint import RESULT, load_dictionary, read_config, read_figures
from .sae import Stored


@final
@dataclass(frozen=True, repr=False)
class Run(Shown):
    """A run's folder, read on demand."""

    folder: Path

    def _card(self) -> Card:
        return run_card(self.folder, self.config, self.figures)

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


def run_card(folder: Path, config: Mapping[str, Any], figures: Mapping[str, Any]) -> Card:
    """What Python and a notebook show of a run."""
    shown = {
        "FVU (held out)": _number(figures.get("fvu"), "{:.3g}"),
        "active latents": _number(figures.get("l0"), "{:.1f}"),
        "dead": _number(figures.get("dead"), "{:.1%}").replace("%", " %"),
        "vectors": _number(figures.get("vectors"), "{:,}"),
        "store": str(config.get("store", "")),
    }
    told = [f"{name} {shown[key]}" for name, key in HEADLINE if shown[key]]
    label = str(config.get("label") or config.get("site") or "")
    headline = f"{label}; {', '.join(told)}" if told else f"{label}; not finished"
    lines = {name: value for name, value in shown.items() if value}
    return Card("Run", folder.resolve().name, headline, lines, str(folder))


HEADLINE = (("FVU", "FVU (held out)"), ("L0", "active latents"), ("dead", "dead"))


def _number(value: Any, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else ""


def load_run(run: str | Path, home: str | None = None) -> Run:
    """The finished run called `run`: a path, a name in runs/, the beginning of just one name, or
    `latest`. Raises RunNotFoundError."""
    return Run(find_run(run, home))
