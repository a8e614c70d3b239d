"""`tendril study NAME --field value`: a run and its subject -> a report."""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from tendril.data.cli import CONFIG_HELP, Outcome, config_files, no_exit, run_command

from .core.config import StudyConfig
from .registry import STUDIES

INDEX, EXPORT = "index", "export"


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """Parse, then study; nothing heavy is imported before the arguments are understood."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    first = words[0] if words else "--help"
    if first == INDEX:
        return _index(words[1:])
    if first == EXPORT:
        return _export(words[1:])
    if ".py:" in first:
        from .run import load_study

        study = load_study(first)
        return _run(study, _parse({first: study.config}, words))
    if not first.startswith("-") and first not in STUDIES:
        from .run import unknown_study

        raise unknown_study(first)
    names = [first] if first in STUDIES else list(STUDIES)  # other studies' flags are not built
    configs = {name: STUDIES[name].config for name in names}
    config = _parse(configs, words or ["--help"])
    name = next(name for name, kind in configs.items() if kind is type(config))
    return _run(STUDIES[name].load(), config)


def _parse(configs: dict[str, Any], words: Sequence[str]) -> StudyConfig:
    rest, files = config_files(words)
    first = rest[0] if rest else ""
    described = {
        name: (
            f"{inspect.getdoc(kind) or ''}\n\n{CONFIG_HELP}",
            files.over(kind()) if name == first else kind(),
        )
        for name, kind in configs.items()
    }
    config: StudyConfig = tyro.extras.overridable_config_cli(
        described,
        args=rest or ["--help"],
        prog="tendril study",
        description="Study a trained dictionary and its subject; make a page of findings. "
        "`tendril study index` lists all reports on one page, and `tendril study export` writes "
        "a features report for Neuronpedia. A study of your own is named "
        "FILE.py:CLASS.",
    )
    files.save(config, ["tendril", "study", first])
    return config


def _run(study: Any, config: StudyConfig) -> Outcome:
    from .core.study import run_study

    with no_exit(getattr(config, "subject", "")):
        return run_study(study, config).outcome()


def _index(words: Sequence[str]) -> Outcome:
    from .core.index import write_index

    def index(home: str = "") -> str:
        """Write one page that links all reports of a home.

        Args:
            home: Folder that holds reports/; by default $TENDRIL_HOME, or the current folder.
        """
        return home

    page = write_index(tyro.cli(index, args=words, prog="tendril study index"))
    return Outcome({"index": str(page)}, f"Index written: {page}.", f"open {page}")


def _export(words: Sequence[str]) -> Outcome:
    from .features.neuronpedia import export_features

    def export(
        report: tyro.conf.Positional[str],
        folder: tyro.conf.Positional[str],
        model: str = "",
        layer: int = -1,
        set: str = "",
        home: str = "",
    ) -> Outcome:
        """Write a features report of text as the batches that SAEDashboard and Neuronpedia read.

        Args:
            report: Report: a path, a name in reports/, the beginning of just one, or latest.
            folder: Folder to make.
            model: Name of the model on Neuronpedia; by default that of the subject.
            layer: Number of the layer; by default that of the site's block.
            set: Name of the set of dictionaries; by default that of the run.
            home: Folder that holds reports/ and runs/; by default $TENDRIL_HOME, or here.
        """
        return export_features(report, folder, model, layer, set, home)

    return tyro.cli(export, args=words, prog="tendril study export")


if __name__ == "__main__":
    run_command(main)
