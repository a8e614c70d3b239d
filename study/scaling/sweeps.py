"""Runs by name: of one run, or of a sweep, whose runs it stands for."""

from pathlib import Path

from tendril.data.errors import RunNotFoundError
from tendril.data.home import Kind, find, find_run
from tendril.models.dictionaries.checkpoint import read_json

from ..core.study import run_name

TABLE = "table.json"
SWEEP = Kind("sweep", "runs", TABLE, RunNotFoundError, "`tendril train sweep --help`")


def runs_called(name: str, home: str) -> tuple[str, list[Path]]:
    """The full name, and the folder of a run or the folders of a sweep's runs. `sweep-` may be left
    out. Raises RunNotFoundError."""
    try:
        run = find_run(name, home)
    except RunNotFoundError as error:
        sweep = _sweep(name, home)
        if sweep is None:
            raise error from None
        rows = read_json(sweep / TABLE)["runs"]
        return run_name(sweep, home), [find_run(sweep.parent / row["run"]) for row in rows]
    return run_name(run, home), [run]


def _sweep(name: str, home: str) -> Path | None:
    for wanted in (name, f"sweep-{name}"):
        try:
            return find(SWEEP, wanted, home)
        except RunNotFoundError:
            continue
    return None
