"""What `tendril train` does besides recipes: sweeps, runs to and from other tools, and its help.

No torch at the top: `--help` must answer at once.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn, TypeVar, cast, final

import tyro

from tendril.data.cli import CONFIG_HELP, Outcome, check_finite, command_line, config_files
from tendril.data.errors import ConfigError

from .classifier.config import ClassifierConfig, classifier
from .config import TrainConfig, flags_of, near, refuse_unknown
from .ensemble.config import EnsembleConfig, ensemble
from .recipes import RECIPES
from .sweep.recipes import SWEEPS

HELP = ("-h", "--help")
MOVED = {
    "compare": "tendril study compare --run NAME NAME",
    "orbit_crosscoder": "tendril train equivariant_crosscoder",
}

Config = TypeVar("Config")


@final
@dataclass(frozen=True)
class ExportConfig:
    """Which run to write where."""

    run: tyro.conf.Positional[str] = "latest"
    """Run: a path, a name in runs/, the beginning of just one name, or latest."""
    folder: tyro.conf.Positional[str] = "saelens"
    """Folder to make."""
    format: str = "saelens"
    """Tool to write for: saelens or visaebench."""
    home: str = ""
    """Folder that holds runs/; by default $TENDRIL_HOME, or the current folder."""


@final
@dataclass(frozen=True)
class ImportConfig:
    """Which folder or file to make a run from."""

    folder: tyro.conf.Positional[str] = "saelens"
    """Folder or file that another tool wrote, or hf://user/repository/folder."""
    format: str = ""
    """Its format: saelens, sparsify, dictionary_learning, gemma_scope, visaebench, openai or
    overcomplete. By default it is told by the files."""
    name: str = ""
    """First part of the run's name; by default `imported` and the site."""
    scale: float = 0.0
    """Factor that activations were multiplied by, if cfg.json says expected_average_only_in:
    sqrt(D) over their mean norm. 0: none."""
    k: int | None = None
    """Active latents of an overcomplete dictionary, whose file lacks it; 0: a plain SAE."""
    threshold: float | None = None
    """The running_threshold of an overcomplete BatchTopKSAE, which its file lacks."""
    normalised: bool = False
    """The vectors are normalised one by one already, as OpenAI's dictionaries with TopK need."""
    home: str = ""
    """Folder that holds runs/; by default $TENDRIL_HOME, or the current folder."""


def export() -> ExportConfig:
    """Write a run as a folder that SAELens or ViSAEBench loads.

    For SAELens 6: cfg.json and sae_weights.safetensors (standard, topk or jumprelu). For
    ViSAEBench: config.json and model.safetensors (topk or jumprelu). Takes seconds.
    """
    return ExportConfig()


def import_() -> ImportConfig:
    """Make a run from a dictionary that another tool wrote.

    Reads those of SAELens, sparsify, dictionary_learning, Gemma Scope, ViSAEBench, OpenAI and
    overcomplete. Normalisation is folded into the weights. Takes seconds.
    """
    return ImportConfig()


EXCHANGE: dict[str, Callable[[], ExportConfig | ImportConfig]] = {
    "export": export,
    "import": import_,
}
ENSEMBLES: dict[str, Callable[[], EnsembleConfig]] = {"ensemble": ensemble}
NETWORKS: dict[str, Callable[[], ClassifierConfig]] = {"classifier": classifier}


def run_other(name: str, words: Sequence[str]) -> Outcome:
    """Run what is no recipe. Raises ConfigError for a word that is not known."""
    if name in HELP:
        print(usage())
        sys.exit(0)
    if name in SWEEPS:
        return _sweep(name, words)
    if name in ENSEMBLES:
        several = parse_flat(name, ENSEMBLES[name], words)
        from .ensemble.loop import train_ensemble

        return train_ensemble(several).outcome(several.base.home)
    if name in NETWORKS:
        made = parse_flat(name, NETWORKS[name], words)
        from .classifier.loop import train_classifier

        return train_classifier(made).outcome(made.home)
    if name not in EXCHANGE:
        refuse(name, [*RECIPES, *SWEEPS, *ENSEMBLES, *NETWORKS, *EXCHANGE])
    config = parse_flat(name, EXCHANGE[name], words)
    from .exchange import export_run, import_run

    if isinstance(config, ExportConfig):
        return export_run(config.run, config.folder, config.home, config.format)
    return import_run(
        config.folder,
        config.name,
        config.scale or None,
        config.home,
        format=config.format,
        k=config.k,
        threshold=config.threshold,
        normalised=config.normalised,
    )


def _sweep(recipe: str, words: Sequence[str]) -> Outcome:
    config = parse_flat(recipe, SWEEPS[recipe], words)
    from .distributed import refuse_launch

    refuse_launch("a sweep")
    if config.base.dry_run:
        from .sweep.estimate import estimate

        wet = replace(config, base=replace(config.base, dry_run=False))
        default = SWEEPS[recipe]()
        return estimate(config, command_line(["tendril", "train", recipe], wet, default))
    from .sweep.sweep import sweep

    return sweep(config).outcome(config.base.home)


def parse_flat(name: str, make: Callable[[], Config], words: Sequence[str]) -> Config:
    """The config of `tendril train NAME WORDS`; of a sweep, with the fields of its runs.

    Raises ConfigError for a flag that does not exist.
    """
    words, files = config_files(words)
    default: Any = make()
    own = {f.name for f in fields(default)} - {"base"}
    if hasattr(default, "base"):
        own |= {f.name for f in fields(TrainConfig)} - {"objective"}
    for flagged in flags_of(words):
        if flagged not in own:
            refuse_unknown(name, flagged, sorted(own))
    parsed = tyro.cli(
        type(default),
        default=files.over(default, own),
        args=list(words),
        prog=f"tendril train {name}",
        description=f"{inspect.getdoc(make)}\n\n{CONFIG_HELP}",
    )
    check_finite(parsed)
    files.save(parsed, ["tendril", "train", name], own)
    return cast(Config, parsed)


def refuse(name: str, known: Sequence[str]) -> NoReturn:
    """Raise ConfigError for a first word that is not known."""
    if name in MOVED:
        raise ConfigError(f"`tendril train {name}` is now `{MOVED[name]}`.")
    got = f"got {name!r}{near(name, known)}" if name else "got nothing"
    raise ConfigError(
        f"the first word must be one of {', '.join(known)}; {got}. `tendril train --help` says "
        "what each is."
    )


def usage() -> str:
    """What `tendril train --help` prints."""
    sections: dict[str, Mapping[str, Callable[[], object]]] = {
        "recipes": RECIPES,
        "sweeps": SWEEPS,
        "ensembles": ENSEMBLES,
        "networks to study": NETWORKS,
        "commands": EXCHANGE,
    }
    listed = "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:<22} {headline(make)}" for name, make in made.items())])
        for title, made in sections.items()
    )
    return (
        "usage: tendril train RECIPE [--flag value ...]\n\n"
        f"Train a sparse dictionary on the activations of a store.\n\n{listed}\n\n"
        "`tendril train RECIPE --help` says what to expect of a recipe and lists its flags."
    )


def headline(make: Callable[[], object]) -> str:
    """The first sentence of a recipe's docstring."""
    return " ".join((inspect.getdoc(make) or "").partition("\n\n")[0].split())
