"""The index: one page that links all reports of a home, with their headlines and figures."""

import datetime
import json
from pathlib import Path
from typing import Any

from tendril.data.home import REPORT, entries, reports_folder
from tendril.data.store.atomic import write_whole

from ..page.render import HERE, render
from .report import ABOUT, PAGE

SHOWN = 6  # figures of a report


def write_index(home: str = "") -> Path:
    """Write `<home>/reports/index.html` from the reports that are there, newest first."""
    folder = reports_folder(home)
    reports = sorted(entries(folder, REPORT.marker), key=_written, reverse=True)
    page = folder / PAGE
    folder.mkdir(parents=True, exist_ok=True)
    context = {"title": "Reports", "reports": [_entry(report) for report in reports]}
    write_whole(page, render(HERE, context, "index.html").encode())
    return page


def _written(report: Path) -> float:
    return (report / REPORT.marker).stat().st_mtime


def _entry(report: Path) -> dict[str, Any]:
    """What the index shows of a report; of one without about.json, its name."""
    about = _read(report / ABOUT)
    figures = _read(report / REPORT.marker)
    numbers = [(k.replace("_", " "), _number(v)) for k, v in figures.items() if _is_number(v)]
    return {
        "link": f"{report.name}/{PAGE}",
        "name": report.name,
        "study": about.get("study", ""),
        "title": about.get("title", report.name),
        "headline": about.get("headline", ""),
        "figures": numbers[:SHOWN],
        "written": _date(_written(report)),
    }


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
