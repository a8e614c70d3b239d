"""What the studies share of a report: its folder, named by all that determines it, and its page."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tendril.data.cli import note
from tendril.data.home import reports_folder
from tendril.data.store.atomic import write_whole
from tendril.data.store.spec import canonical_json, slug

from ..curves.config import CurvesConfig
from ..missing_curves.config import SourceConfig

RESULT, PAGE = "result.json", "index.html"


@dataclass(frozen=True)
class Report:
    """A report's folder; `index.html` and, last, `result.json` are written into it."""

    folder: Path

    @property
    def page(self) -> Path:
        """Where the page is, or will be."""
        return self.folder / PAGE

    def figures(self) -> dict[str, Any] | None:
        """The figures of a report that is finished, else None."""
        if not ((self.folder / RESULT).is_file() and self.page.is_file()):
            return None
        note(f"{self.page} is there already.")
        told: dict[str, Any] = json.loads((self.folder / RESULT).read_text())
        return told

    def begin(self) -> Path:
        """The folder, there and not finished: for files beside the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RESULT).unlink(missing_ok=True)
        return self.folder

    def write(self, html: str, figures: Mapping[str, Any]) -> None:
        """The page, and its figures last."""
        self.begin()
        write_whole(self.page, html.encode())
        write_whole(self.folder / RESULT, (json.dumps(figures, indent=2) + "\n").encode())


@dataclass(frozen=True)
class StudyResult:
    """A finished study: where its page is, and its figures as JSON."""

    report: Path
    figures: Mapping[str, Any]
    seconds: float
    reused: bool = False

    def summary(self) -> dict[str, Any]:
        """As JSON, for the last line of the command; a list of all latents is in the report."""
        told = {name: value for name, value in self.figures.items() if name != "latents"}
        return {
            "report": str(self.report),
            **told,
            "seconds": self.seconds,
            "reused": self.reused,
        }


def report_of(home: str, name: str, made: Mapping[str, Any]) -> Report:
    """`<home>/reports/<name>-<12 hex of SHA-256 of `made`>`."""
    digest = hashlib.sha256(canonical_json(made).encode()).hexdigest()
    return Report(reports_folder(home) / f"{slug(name)}-{digest[:12]}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources_config(config: SourceConfig, run: str, site: str = "") -> CurvesConfig:
    """What `find_sources` takes, for one run."""
    return CurvesConfig(
        run=run,
        subject=config.subject,
        weights=config.weights,
        normalisation=config.normalisation,
        inputs=config.inputs,
        device=config.device,
        home=config.home,
        site=site,
    )
