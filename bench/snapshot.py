"""Names and digests of what small versions of every recipe and study make.

They show that a change of the code does not change its results:

    tendril bench snapshot --out before.json      with the old code
    tendril bench snapshot --against before.json  with the new code; status 2 if anything differs

Commands run one after the other in processes of their own, on one CPU thread. A command that fails
is listed as a difference, and the others still run.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tendril.data.cli import Outcome, note
from tendril.data.errors import ConfigError

from .config import SnapshotBench
from .snapshot_commands import COMMANDS, LANGUAGE, NEEDED
from .snapshot_digests import differences, snapshot_of

SHOWN = 60  # differences that are printed


def measure(bench: SnapshotBench) -> Outcome:
    """Run the commands, take the digests, and compare them.

    Raises ConfigError if a command fails, or if anything differs from `bench.against`.
    """
    began = time.monotonic()
    earlier = _read(bench.against) if bench.against else None
    failures: list[str] = []
    if bench.home:
        entries = snapshot_of(bench.home)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            home = str(Path(bench.keep or scratch).resolve())
            failures = run_commands(home, commands(bench.only))
            entries = snapshot_of(home)
    if bench.out:
        Path(bench.out).write_text(json.dumps({"entries": entries}, indent=1) + "\n")
    changed = [] if earlier is None else differences(entries, earlier, bench.against)
    _refuse([*failures, *changed], bench.against)
    seconds = round(time.monotonic() - began, 1)
    parts = sum(len(entry["files"]) for entry in entries)
    same = f", all equal to {bench.against}" if bench.against else ""
    out = bench.out or "before.json"
    return Outcome(
        {"what": "snapshot", "entries": len(entries), "parts": parts, "seconds": seconds},
        f"{len(entries)} stores, runs and reports with {parts:,} parts{same}",
        "" if bench.against else f"tendril bench snapshot --against {out}",
    )


def commands(only: tuple[str, ...] = ()) -> list[str]:
    """The commands to run, without `tendril`; those of language if there is a model."""
    shared = Path(os.environ.get("TENDRIL_SHARED", "../shared"))
    language = LANGUAGE if all((shared / name).exists() for name in NEEDED) else ()
    chosen = [c.format(shared=shared) for c in (*COMMANDS, *language)]
    return [c for c in chosen if not only or c.startswith(only)]


def run_commands(home: str, chosen: list[str]) -> list[str]:
    """Run commands in a home; returns a line for each one that failed."""
    environment = os.environ | {
        "TENDRIL_HOME": home,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    failures = []
    for number, command in enumerate(chosen, 1):
        note(f"{number} of {len(chosen)}: tendril {command}")
        done = subprocess.run(
            [sys.executable, "-m", "tendril", *shlex.split(command)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = last_words(done.stderr)
            failures.append(f"tendril {command} failed with status {done.returncode}: {reason}")
    return failures


def last_words(stderr: str) -> str:
    """The last line of a message, without the frame that tyro draws around its errors."""
    lines = [line.strip(" │╭╮╰╯─") for line in stderr.splitlines()]
    lines = [line for line in lines if line and not line.startswith("For full helptext")]
    return lines[-1] if lines else "no message"


def _read(path: str) -> list[dict[str, Any]]:
    """The entries of a snapshot file. Raises ConfigError."""
    try:
        entries: list[dict[str, Any]] = json.loads(Path(path).read_text())["entries"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--against must be a file written by `tendril bench snapshot --out`; got {path} "
            f"({error})."
        ) from error
    return entries


def _refuse(lines: list[str], against: str) -> None:
    """Print differences and raise ConfigError, if there are any."""
    if not lines:
        return
    for line in lines[:SHOWN]:
        note(line)
    if len(lines) > SHOWN:
        note(f"and {len(lines) - SHOWN:,} more")
    where = f"{against} and this code" if against else "the commands"
    raise ConfigError(f"{len(lines)} differences or failures in {where}; they are listed above.")
