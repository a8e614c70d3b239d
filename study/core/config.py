"""The fields that studies share. Imports no torch: `--help` must answer at once."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tendril.data.errors import ConfigError


@dataclass(frozen=True)
class StudyConfig:
    """Fields of every study. Abstract: each study adds its own."""

    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:N or mps."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; by default $TENDRIL_HOME, or the current
    folder."""
    name: str = ""
    """First part of the report's name; by default the study and what it is about."""
    dry_run: bool = False
    """Report what would be made, and whether it exists, without making it."""
    overwrite: bool = False
    """Make the report again even if it exists."""

    NO_SETTING: ClassVar[frozenset[str]] = frozenset(
        {
            *("device", "home", "name", "dry_run", "overwrite", "batch_size"),
            *("run", "controls", "store", "subject", "weights", "normalisation", "inputs"),
        }
    )
    """Fields that say where things are or how fast to go. They are no part of a report's identity:
    what they lead to (a dictionary, a store, a subject) is, by its digest."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""

    def settings(self) -> dict[str, Any]:
        """The fields that can change the findings, by name."""
        return {name: v for name, v in asdict(self).items() if name not in self.NO_SETTING}


@dataclass(frozen=True)
class VisionConfig(StudyConfig):
    """Fields of studies that need the vision network or its images again. Abstract."""

    store: str = ""
    """Store of the run's activations; by default the one it was trained on."""
    subject: str = ""
    """Network: inceptionv1, handmade, planted, hf:NAME, timm:NAME, torchvision:NAME or
    FILE.py:FUNCTION; by default the store's own."""
    weights: str = ""
    """File of weights, or `lucent` (inceptionv1); by default as harvested."""
    normalisation: str = ""
    """Response normalisation of inceptionv1: auto, lucent or sibling; by default as harvested."""
    inputs: str = ""
    """Where the harvested images are; by default where they were."""


@dataclass(frozen=True)
class LanguageConfig(StudyConfig):
    """Fields of studies that need the language model or its text again. Abstract."""

    store: str = ""
    """Store of the run's activations; by default the one it was trained on."""
    subject: str = ""
    """Language model: a folder, a name on the Hugging Face hub, or package:NAME; by default the
    store's own."""


def dropped_identity(trained: Mapping[str, Any]) -> dict[str, Any]:
    """The entry in a report's identity for rows that a study leaves out as its run did; empty for
    a run that dropped none."""
    if trained.get("norm_outliers") != "drop":
        return {}
    return {"norm_outliers": "drop", "outlier_times": trained.get("outlier_times")}


def outlier_remark(trained: Iterable[Mapping[str, Any]], *, dropped: bool = False) -> list[str]:
    """What became here of the norm outliers that runs dropped or capped, in a sentence each.

    `trained` are the runs' configs; `dropped` says that a study leaves out what its run dropped.
    """
    found = {}
    for config in trained:
        rule, times = config.get("norm_outliers") or "keep", config.get("outlier_times") or 10
        if rule == "keep":
            continue
        rows = f"norm outliers (rows above {float(times):g} times the median norm)"
        verb = {"drop": "left out", "cap": "capped"}.get(str(rule), str(rule))
        found[verb, rows] = (
            f"Training {verb} {rows}; they are left out here, too."
            if dropped and rule == "drop"
            else f"Training {verb} {rows}; here they are read as they are, so figures over all "
            "rows or positions, such as FVU and activity, include them."
        )
    return list(found.values())


def at_least(config: Any, **least: int | float) -> None:
    """Raise ConfigError for a field below its least value."""
    for name, low in least.items():
        value = getattr(config, name)
        if not value >= low:  # also where it is NaN
            raise ConfigError(f"--{flag(name)} must be {low:g} or more; got {value:g}.")


def fractions(config: Any, names: Iterable[str]) -> None:
    """Raise ConfigError for a field that is no number from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ConfigError(f"--{flag(name)} must be a fraction from 0 to 1; got {value:g}.")


def several_runs(run: tuple[str, ...], least: int = 1) -> None:
    """Raise ConfigError where fewer runs are named than a study needs."""
    if len(run) < least:
        wanted = "the name of a run" if least == 1 else f"the names of {least} runs or more"
        raise ConfigError(
            f"--run must give {wanted}; got {len(run)}. `tendril data ls` lists runs."
        )


def flag(name: str) -> str:
    """A field's name as it is typed on the command line."""
    return name.replace("_", "-")
