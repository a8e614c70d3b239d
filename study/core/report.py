"""A report on disk: its folder, named by all that determines it, and the files it holds.

<report>/index.html    the page
<report>/*.csv, *.npz  tables
<report>/about.json    study, title, headline, the command that makes it again, and its identity
<report>/result.json   the figures, written last: the report is finished

result.json holds the digests of the other files and of itself, so that no altered report is reused.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tendril.data.errors import ReportDamagedError
from tendril.data.home import REPORT, reports_folder
from tendril.data.store.atomic import (
    ASIDE,
    changed_file,
    check_not_link,
    locked,
    remove_asides,
    sealed,
    unsealed,
    write_whole,
)
from tendril.data.store.folder import sweep_beside
from tendril.data.store.spec import canonical_json, slug

ABOUT, RESULT, PAGE = "about.json", REPORT.marker, "index.html"
AGAIN = "Run the same study with --overwrite."
TABLES = (".csv", ".npz")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@final
@dataclass(frozen=True)
class Report:
    """A report's folder."""

    folder: Path

    @property
    def page(self) -> Path:
        """Where the page is, or will be."""
        return self.folder / PAGE

    @property
    def finished(self) -> bool:
        """True if the report is whole."""
        return (self.folder / RESULT).is_file() and self.page.is_file()

    def figures(self) -> dict[str, Any] | None:
        """The figures of a finished report, else None.

        Raises ReportDamagedError if one of its files has changed. Reports of earlier versions have
        no digests; of these only result.json is checked, for its form.
        """
        if not self.finished:
            return None
        figures, digests = read_sealed(self.folder / RESULT)
        if fault := changed_file(self.folder, digests):
            raise ReportDamagedError(f"{fault}. {AGAIN}")
        return figures

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A context in which the folder is begun, and no other process writes it."""
        check_not_link(self.folder)
        sweep_beside(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder, wait=True):
            self.begin()
            yield

    def begin(self) -> None:
        """Make the folder, and mark it as unfinished.

        Symbolic links in it are removed, so that no table is written through one, and so are
        temporary files of a killed process. Raises ConfigError if the folder itself is a link.
        """
        check_not_link(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RESULT).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.is_symlink():
                path.unlink()
        remove_asides(self.folder)

    def tables(self) -> list[str]:
        """The names of the tables that lie beside the page."""
        return sorted(p.name for p in self.folder.iterdir() if p.suffix in TABLES)

    def finish(self, html: str, about: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Write the page, what it is about and, last, the figures."""
        write_whole(self.page, html.encode())
        write_whole(self.folder / ABOUT, as_json_file(about))
        write_whole(self.folder / RESULT, sealed(figures, sorted(self._files()), self.folder))

    def _files(self) -> list[Path]:
        """All files but result.json and temporary ones."""
        present = (path for path in self.folder.rglob("*") if path.is_file())
        return [p for p in present if p != self.folder / RESULT and p.suffix != ASIDE]


def read_sealed(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A JSON object of a report without its digests, and the digests of the files beside it.

    Raises ReportDamagedError.
    """
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}")
        return unsealed(value)
    except FileNotFoundError as error:
        raise ReportDamagedError(f"{path} is missing. {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise ReportDamagedError(
            f"{path} must be a JSON object as it was written; got {error}. {AGAIN}"
        ) from error


def report_of(home: str, name: str, identity: Mapping[str, Any]) -> Report:
    """`<home>/reports/<name>-<first 12 hex digits of the SHA-256 of identity>`."""
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
    return Report(reports_folder(home) / f"{slug(name)}-{digest[:12]}")


def as_json_file(value: Mapping[str, Any]) -> bytes:
    """A JSON object, indented, with a line break at its end."""
    return (json.dumps(value, indent=2) + "\n").encode()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, one row a line. Text that a spreadsheet would take for a formula is quoted
    with a leading apostrophe."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(map(_cell, columns))
        table.writerows([_cell(value) for value in row] for row in rows)


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of records with the same keys; the keys are the columns."""
    columns = list(records[0]) if records else []
    write_csv(path, columns, ([record[name] for name in columns] for record in records))


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    quoted = f"'{value}" if value.startswith(FORMULA) and not _is_number(value) else value
    return quoted.replace("\r", "\\r")  # csv leaves it unquoted, and a row would end there


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
