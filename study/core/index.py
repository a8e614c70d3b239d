"""The index: one page that links all reports of a home, with their headlines and figures."""

import datetime
from pathlib import Path
from typing import Any

from tendril.data.cli import note
from tendril.data.errors import ReportDamagedError
from tendril.data.home import REPORT, entries, reports_folder
from tendril.data.store.atomic import changed_file, locked, remove_asides, write_whole

from ..page.render import HERE, render
from .report import ABOUT, AGAIN, PAGE, RESULT, Report, read_sealed

SHOWN = 6  # figures of a report


def write_index(home: str = "") -> Path:
    """Write `<home>/reports/index.html` from the reports that are there, newest first.

    A report with a damaged file is named as such, without its figures.
    """
    folder = reports_folder(home)
    reports = sorted(entries(folder, REPORT.marker), key=_written, reverse=True)
    page = folder / PAGE
    folder.mkdir(parents=True, exist_ok=True)
    context = {"title": "Reports", "reports": [_entry(report) for report in reports]}
    with locked(folder, wait=True):
        remove_asides(folder, deep=False)
        write_whole(page, render(HERE, context, "index.html").encode())
    return page


def is_listed(report: Report) -> bool:
    """True if the index was written after a finished report."""
    page = report.folder.parent / PAGE
    return page.is_file() and page.stat().st_mtime_ns >= (report.folder / RESULT).stat().st_mtime_ns


def _written(report: Path) -> float:
    return (report / REPORT.marker).stat().st_mtime


def _entry(report: Path) -> dict[str, Any]:
    """What the index shows of a report; of one without about.json, its name."""
    shown = {"link": f"{report.name}/{PAGE}", "name": report.name, "title": report.name}
    shown |= {"study": "", "headline": "", "written": _date(_written(report))}
    try:
        figures, digests = read_sealed(report / REPORT.marker)
        about: dict[str, Any] = {}
        if (report / ABOUT).is_file():
            if fault := changed_file(report, {n: d for n, d in digests.items() if n == ABOUT}):
                raise ReportDamagedError(f"{fault}. {AGAIN}")
            about, _ = read_sealed(report / ABOUT)
    except (ReportDamagedError, OSError) as error:
        note(f"the report {report.name} is damaged: {error}")
        return {**shown, "headline": "This report is damaged.", "figures": []}
    for name in ("study", "title", "headline"):
        shown[name] = str(about.get(name, shown[name]))
    numbers = [(k.replace("_", " "), _number(v)) for k, v in figures.items() if _is_number(v)]
    return {**shown, "figures": numbers[:SHOWN]}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
