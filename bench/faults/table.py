"""`tendril bench faults`: put faults in, and count how they end.

Every trial forks this process, which has imported what the commands need: a command takes a tenth
of a second instead of several. A fork sees no thread and no file of another trial.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tendril.data.cli import FAULT, Outcome, note
from tendril.data.errors import ConfigError
from tendril.data.store.atomic import write_whole

from ..config import FaultsBench
from .findings import Tally, markdown
from .flips import flips
from .home import Lab, prepare
from .hostile import hostile
from .inputs import inputs
from .kills import kills

SHOWN = 40  # cases that are printed


def measure(bench: FaultsBench) -> Outcome:
    """Run the classes and write the table.

    Leaves with exit status 1 if anything was silent, a traceback, a hang, lost, left over or
    touched outside. Raises ConfigError for a number that is negative.
    """
    for name in ("flips", "inputs", "kills", "budget"):
        if getattr(bench, name) < 0:
            raise ConfigError(f"--{name} must be 0 or more; got {getattr(bench, name)}.")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tallies = run(bench, prepare(Path(folder).resolve(), 60 * bench.budget))
    rows = [tally.row() for tally in tallies]
    table, seconds = markdown(rows), round(time.monotonic() - began, 1)
    note(table)
    failures = [failure for row in rows for failure in row["failures"]]
    for failure in failures[:SHOWN]:
        note(f"{failure['ending']}: {failure['case']}: {failure['what'][-200:]}")
    if len(failures) > SHOWN:
        note(f"and {len(failures) - SHOWN:,} more; --out FILE.json keeps them all")
    if bench.out:
        _write(Path(bench.out), bench, rows, table)
    counts = {name: sum(row[name] for row in rows) for name in ("tried", "found", "harmless")}
    outcome = Outcome(
        {"bench": "faults", **counts, "bad": len(failures), "seconds": seconds},
        f"{counts['tried']:,} faults put in: {counts['found']:,} found, {counts['harmless']:,} "
        f"harmless, {len(failures):,} that must not be",
    )
    if failures:
        print(json.dumps(outcome.result), flush=True)
        sys.exit(FAULT)
    return outcome


def run(bench: FaultsBench, lab: Lab) -> list[Tally]:
    """The tallies of the chosen classes."""
    chosen = bench.only or ("flips", "inputs", "kills", "hostile")
    tallies: list[Tally] = []
    if "flips" in chosen:
        tallies += flips(lab, bench.flips, bench.seed)
    if "inputs" in chosen:
        tallies += inputs(lab, bench.inputs, bench.seed)
    if "kills" in chosen:
        tallies += kills(lab, bench.kills, bench.seed)
    if "hostile" in chosen:
        tallies += hostile(lab)
    return tallies


def _write(path: Path, bench: FaultsBench, rows: list[dict[str, Any]], table: str) -> None:
    """The table as Markdown, and beside it everything as JSON."""
    about = {"seed": bench.seed, "only": list(bench.only), "rows": rows}
    write_whole(path.with_suffix(".md"), f"{table}\n".encode())
    write_whole(path.with_suffix(".json"), (json.dumps(about, indent=1) + "\n").encode())
