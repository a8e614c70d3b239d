"""What a study is, and how every study runs: find its inputs, compute, write a report.

A new study is a folder with config.py, study.py, findings.py, page.py and page.html, and a line
in `study/registry.py`.
"""

import inspect
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, final

from tendril.data.cli import Outcome, Shown, check_finite, command_line, note, scalars
from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.errors import ReportDamagedError
from tendril.data.home import RUN, find_run, folder_of

from ..page.render import render
from .config import StudyConfig
from .index import is_listed, write_index
from .report import AGAIN, RESULT, Report, report_of

if TYPE_CHECKING:
    from tendril.data.cards import Card

C = TypeVar("C", bound=StudyConfig)
I = TypeVar("I")  # noqa: E741  inputs, as in Study[C, I, F]
F = TypeVar("F")

SHOWN = 10  # figures that a notebook shows
RUN_FIELDS = ("run", "controls")


class Study(ABC, Generic[C, I, F]):
    """One study: config C, inputs I (run, store, subject ...) and findings F.

    `run_study` calls the methods in the order in which they stand here.
    """

    name: ClassVar[str]
    """First part of its reports' names."""
    version: ClassVar[int] = 1
    """Raised when the same inputs would give another report."""
    config: ClassVar[type[StudyConfig]]

    def __init__(self, called: str = "") -> None:
        self.called = called or self.name
        """What is typed after `tendril study`: the name, or FILE.py:CLASS."""

    @abstractmethod
    def find(self, config: C) -> I:
        """Find run, store, subject and inputs, and check that they belong together.

        Raises children of TendrilError for all that the config, its paths or files can cause.
        """

    @abstractmethod
    def identity(self, config: C, inputs: I) -> Mapping[str, Any]:
        """What determines the findings besides `config.settings()`: digests of the dictionaries,
        names of stores, identities of subjects. It is hashed into the report's name."""

    @abstractmethod
    def title(self, config: C, inputs: I) -> str:
        """The page's title."""

    def label(self, config: C, inputs: I) -> str:
        """What the report is about, for its folder: `<study>-<label>-<digest>`."""
        return ""

    def resolved(self, config: C, inputs: I) -> C:
        """The config with names that stay true: `latest` becomes the run's own name."""
        return with_run_names(config)

    def estimate(self, config: C, inputs: I) -> Mapping[str, Any]:
        """What `--dry-run` says beyond the report's folder: costs, counts."""
        return {}

    @abstractmethod
    def compute(self, config: C, inputs: I, device: Any) -> F:
        """The findings."""

    @abstractmethod
    def figures(self, findings: F) -> dict[str, Any]:
        """The findings as JSON values, for result.json."""

    @abstractmethod
    def headline(self, figures: Mapping[str, Any]) -> str:
        """The two or three figures that matter, in one sentence."""

    def remarks(self, config: C, inputs: I) -> Sequence[str]:
        """What a reader of the figures must know about the inputs, in sentences: examples that are
        training inputs, rows that the run left out, tokens in place of a map. They are printed,
        stand at the top of the page, and go into the figures as `remarks`. By default those of
        `inputs.remarks()`, if there is such a method."""
        own = getattr(inputs, "remarks", None)
        return own() if callable(own) else ()

    def table(self, figures: Mapping[str, Any]) -> str:
        """A table for the terminal; empty for none."""
        return ""

    def complete(self, figures: Mapping[str, Any]) -> bool:
        """True if a finished report with these figures can be reused."""
        return True

    def write_tables(self, findings: F, folder: Path) -> None:
        """Write CSV and NPZ files beside the page."""

    @abstractmethod
    def page(self, config: C, inputs: I, findings: F) -> Mapping[str, Any]:
        """What the study's page.html shows. `render_page` adds title, command, identity and
        tables, which page/base.html shows for every study."""


def as_text(value: object) -> str:
    """A figure for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@final
@dataclass(frozen=True, repr=False)
class StudyResult(Shown):
    """A finished study: its page, and its figures as in result.json."""

    study: str
    report: Path
    figures: Mapping[str, Any]
    headline: str = ""
    table: str = ""
    seconds: float = 0.0
    reused: bool = False
    dry_run: bool = False

    def _card(self) -> "Card":
        from tendril.data.cards import Card  # a command needs none

        plain = {n: v for n, v in scalars(self.figures).items() if v is not None}
        lines = {n.replace("_", " "): as_text(v) for n, v in list(plain.items())[:SHOWN]}
        name = self.report.parent.name
        headline = "dry run: nothing was made" if self.dry_run else self.headline
        return Card("Report", name, headline, lines, str(self.report), page=not self.dry_run)

    def outcome(self) -> Outcome:
        """What the command prints."""
        result = {"report": str(self.report), "study": self.study, **scalars(self.figures)}
        if self.dry_run:
            exists = "exists" if self.reused else "does not exist yet"
            sentence = f"Dry run: the report would be {self.report}, which {exists}."
            return Outcome({**result, "dry_run": True, "exists": self.reused}, sentence)
        made = "Report found" if self.reused else "Report written"
        sentence = f"{made}: {self.report}. {self.headline}".strip()
        timed = {"seconds": self.seconds, "reused": self.reused}
        text = f"{self.table}\n{sentence}" if self.table else sentence
        return Outcome(result | timed, text, _open_command(self.report))


def run_study(study: Study[C, I, F], config: C) -> StudyResult:
    """Run a study, or return the report that the same inputs gave before.

    The report's folder is `<home>/reports/<name>-<12 hex digits>`; the digits digest the
    study's name and version, its settings and the identity of its inputs. Raises children of
    TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    check_finite(config)
    config.check()
    device = resolve_device(config.device)
    keep_freed_memory()
    inputs = study.find(config)
    identity = {
        "study": study.name,
        "version": study.version,
        "settings": config.settings(),
        **study.identity(config, inputs),
    }
    name = config.name or "-".join(filter(None, (study.name, study.label(config, inputs))))
    report = report_of(config.home, name, identity)
    if config.dry_run:
        estimate, there = study.estimate(config, inputs), report.finished
        return StudyResult(study.name, report.page, estimate, reused=there, dry_run=True)
    figures = None if config.overwrite else report.figures()
    if figures is not None:
        with figures_checked(study.name, report):
            found = _result(study, report, figures, began, reused=True)
            complete = study.complete(figures)
        if complete:
            note(f"{report.page} exists; --overwrite makes it again.")
            if not is_listed(report):  # the process was killed before it wrote the index
                write_index(config.home)
            return found
    remarks = list(study.remarks(config, inputs))
    for remark in remarks:
        note(f"note: {remark}")
    findings = study.compute(config, inputs, device)
    figures = study.figures(findings) | ({"remarks": remarks} if remarks else {})
    _write(study, config, inputs, findings, report, identity, figures)
    write_index(config.home)
    return _result(study, report, figures, began, reused=False)


def _result(
    study: Study[C, I, F], report: Report, figures: Mapping[str, Any], began: float, *, reused: bool
) -> StudyResult:
    return StudyResult(
        study.name,
        report.page,
        figures,
        study.headline(figures),
        study.table(figures),
        round(time.monotonic() - began, 2),
        reused,
    )


@contextmanager
def figures_checked(name: str, report: Report) -> Iterator[None]:
    """A context in which figures from a file that do not fit their study, e.g. of an older version,
    raise ReportDamagedError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ReportDamagedError(
            f"{report.folder / RESULT} must hold the figures of the study {name}; got "
            f"others ({type(error).__name__}: {error}). {AGAIN}"
        ) from error


def _write(
    study: Study[C, I, F],
    config: C,
    inputs: I,
    findings: F,
    report: Report,
    identity: Mapping[str, Any],
    figures: Mapping[str, Any],
) -> None:
    with report.writing():
        study.write_tables(findings, report.folder)
        about = {
            "study": study.name,
            "title": study.title(config, inputs),
            "headline": study.headline(figures),
            "command": rerun_command(study, config, inputs),
            "identity": identity,
        }
        common: dict[str, Any] = {
            **about,
            "identity": json.dumps(identity, indent=2),
            "tables": report.tables(),
            "remarks": figures.get("remarks", []),
        }
        context = {**common, **study.page(config, inputs, findings)}
        folder = Path(inspect.getfile(type(study))).parent
        report.finish(render(folder, context), about, figures)


def rerun_command(study: Study[C, I, F], config: C, inputs: I) -> str:
    """The command that makes the report again when it is pasted into the same folder."""
    home = config.home or os.environ.get("TENDRIL_HOME", "")
    same = replace(study.resolved(config, inputs), home=home, overwrite=False, dry_run=False)
    return command_line(["tendril", "study", study.called], same, type(config)())


def with_run_names(config: C) -> C:
    """A config whose runs are called by their full names."""
    changed: dict[str, Any] = {}
    for name in RUN_FIELDS:
        value = getattr(config, name, None)
        if isinstance(value, str) and value:
            changed[name] = run_name(find_run(value, config.home), config.home)
        elif isinstance(value, tuple):
            folders = [find_run(one, config.home) for one in value]
            changed[name] = tuple(run_name(folder, config.home) for folder in folders)
    return replace(config, **changed)


def run_name(run: Path, home: str) -> str:
    """A run's name where it lies in the home's folder, else its path."""
    inside = run.resolve().parent == folder_of(RUN, home).resolve()
    return run.resolve().name if inside else str(run)


def _open_command(page: Path) -> str:
    return f"open {page}"
