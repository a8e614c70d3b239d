"""A report on disk: its folder, named by all that determines it, and the files it holds.

<report>/index.html    the page
<report>/*.csv, *.npz  tables
<report>/about.json    study, title, headline, the command that makes it again, and its identity
<report>/result.json   the figures, written last: the report is finished
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tendril.data.home import REPORT, reports_folder
from tendril.data.store.atomic import check_not_link, write_whole
from tendril.data.store.spec import canonical_json, slug

ABOUT, RESULT, PAGE = "about.json", REPORT.marker, "index.html"
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

    def figures(self) -> dict[str, Any] | None:
        """The figures of a finished report, else None."""
        if not ((self.folder / RESULT).is_file() and self.page.is_file()):
            return None
        figures: dict[str, Any] = json.loads((self.folder / RESULT).read_text())
        return figures

    def begin(self) -> None:
        """Make the folder, and mark it as unfinished.

        Symbolic links in it are removed, so that no table is written through one. Raises
        ConfigError if the folder itself is a link.
        """
        check_not_link(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RESULT).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.is_symlink():
                path.unlink()

    def tables(self) -> list[str]:
        """The names of the tables that lie beside the page."""
        return sorted(p.name for p in self.folder.iterdir() if p.suffix in TABLES)

    def finish(self, html: str, about: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Write the page, what it is about and, last, the figures."""
        write_whole(self.page, html.encode())
        write_whole(self.folder / ABOUT, as_json_file(about))
        write_whole(self.folder / RESULT, as_json_file(figures))


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
