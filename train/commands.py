"""What can be done with runs that are there. No torch here: `--help` must be quick."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tyro


@dataclass(frozen=True)
class ExportConfig:
    """Which run to write where."""

    run: tyro.conf.Positional[str] = "latest"
    """The run: a path, a name in runs/, the beginning of one, or latest."""
    folder: tyro.conf.Positional[str] = "saelens"
    """The folder to make."""
    home: str = ""
    """Folder that holds runs/; empty: $TENDRIL_HOME, or here."""


@dataclass(frozen=True)
class ImportConfig:
    """Which folder to make a run of."""

    folder: tyro.conf.Positional[str] = "saelens"
    """A folder with cfg.json and sae_weights.safetensors."""
    name: str = ""
    """First part of the run's name; empty: imported and the site."""
    scale: float = 0.0
    """The number that activations were multiplied by, where cfg.json says
    expected_average_only_in: sqrt(D) over their mean norm. 0: none."""
    home: str = ""
    """Folder that holds runs/; empty: $TENDRIL_HOME, or here."""


Command = ExportConfig | ImportConfig


def export() -> ExportConfig:
    """Write a run as a folder that SAELens loads.

    cfg.json and sae_weights.safetensors of SAELens 6: standard, topk or jumprelu. Seconds.
    """
    return ExportConfig()


def import_() -> ImportConfig:
    """Make a run of a folder that SAELens wrote.

    standard, topk, jumprelu, gated and batchtopk; what its format can say and ours cannot is
    folded into the weights. Seconds.
    """
    return ImportConfig()


COMMANDS: dict[str, Callable[[], Command]] = {
    "export": export,
    "import": import_,
}


def run_one(config: Command) -> dict[str, Any]:
    """Do what a command's config says; what it imports is heavy."""
    from .saelens import export_run, import_run

    return export_run(config) if isinstance(config, ExportConfig) else import_run(config)
