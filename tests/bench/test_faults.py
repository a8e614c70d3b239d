"""Faults that are put in: the bench in small, its parts, and in full as a slow test."""

import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tendril.bench.faults.findings import Tally, markdown
from tendril.bench.faults.flips import REFUSED, flip, judged
from tendril.bench.faults.hostile import listen
from tendril.bench.faults.operations import Operations
from tendril.bench.faults.tensors import mutate
from tendril.bench.faults.trial import Trial, attempt, commands
from tendril.data.errors import ConfigError

SPAWN = "os.posix_spawn"  # what subprocess calls, on some systems


def bench(out: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """The exit status of `tendril bench faults`, the JSON file and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tendril", "bench", "faults", "--out", str(out / "table"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out / "table.json").is_file(), done.stderr
    assert (out / "table.md").read_text().startswith("| class | tried | found | harmless |")
    return done.returncode, json.loads((out / "table.json").read_text()), done.stderr


def test_in_small_every_class_runs_and_the_status_says_what_was_found(tmp_path: Path) -> None:
    words = ("--only", "flips", "inputs", "kills", "--flips", "3", "--inputs", "5", "--kills", "2")
    status, about, printed = bench(tmp_path, *words)
    rows = about["rows"]
    assert sum(row["tried"] for row in rows) == 10, printed
    assert status == (1 if any(row["failures"] for row in rows) else 0)


@pytest.mark.slow
def test_in_full_no_fault_is_silent(tmp_path: Path) -> None:
    status, about, printed = bench(tmp_path)
    assert sum(row["tried"] for row in about["rows"]) >= 1600
    assert status == 0, printed


def test_an_attempt_tells_every_way_to_end(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ConfigError("a must be b; got c.")

    def fail() -> None:
        raise KeyError("x")

    assert attempt(lambda: {"a": 1}, tmp_path).value == {"a": 1}
    assert attempt(refuse, tmp_path).sentence == "a must be b; got c."
    assert attempt(commands([("data", "info", "none")]), tmp_path).kind == "refused"
    failed = attempt(fail, tmp_path)
    assert (failed.kind, "KeyError" in failed.text) == ("traceback", True)
    assert attempt(lambda: os._exit(3), tmp_path).kind == "traceback"
    assert attempt(lambda: time.sleep(60), tmp_path, limit=0.2).kind == "hang"
    assert attempt(lambda: print("heard"), tmp_path).text == "heard\n"


def test_a_process_dies_before_the_operation_that_is_named(tmp_path: Path) -> None:
    def write() -> None:
        for name in ("a", "b", "c"):
            (tmp_path / name).write_text("x")

    trial = attempt(write, tmp_path, before=Operations(2).install)
    assert trial.kind == "killed"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    there = Operations(when=(tmp_path / "b").exists)
    assert attempt(write, tmp_path, before=there.install).kind == "killed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_guard_hears_what_happens_outside_the_home(tmp_path: Path) -> None:
    home, heard = tmp_path / "home", tmp_path / "heard"
    for name in ("home", "outside", "allowed"):
        (tmp_path / name).mkdir()
    heard.touch()
    (home / "link").symlink_to(tmp_path / "outside")

    def act() -> None:
        (home / "a").write_text("inside")
        (tmp_path / "allowed" / "b").write_text("allowed")
        (home / "link" / "c").write_text("through a link")
        (home / "link").unlink()  # the link itself lies inside
        subprocess.run(["true"], check=True)

    guard = partial(listen, home, heard, [str(tmp_path / "allowed")])
    assert attempt(act, home, before=guard).kind == "done"
    events = [line.partition(" ")[0] for line in heard.read_text().splitlines()]
    assert {"open", "subprocess.Popen"} <= set(events) <= {"open", "subprocess.Popen", SPAWN}


def test_flips_are_found_harmless_or_silent() -> None:
    right = [{"a": 1}, "info"]
    assert judged(Trial("done", [{"a": 1}, "info"]), right)[0] == "harmless"
    assert judged(Trial("done", [REFUSED, "info"]), right)[0] == "found"
    read_wrong = Trial("done", [{"a": 2}, REFUSED])
    assert judged(read_wrong, right, strict=True) == ("silent", "step 0: differs in a")
    assert judged(read_wrong, right)[0] == "found"
    assert judged(Trial("done", [{"a": 2}, "info"]), right)[0] == "silent"
    assert judged(Trial("hang"), right)[0] == "hang"
    assert judged(Trial("traceback"), right)[0] == "traceback"


def test_a_flip_changes_one_bit_and_a_mutation_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2], "b": {"c": "d"}}')
    before = path.read_bytes()
    flip(path, random.Random(0))
    pairs = zip(before, path.read_bytes(), strict=True)
    assert sum((a ^ b).bit_count() for a, b in pairs) == 1
    for seed in range(30):
        path.write_bytes(before)
        mutate(path, random.Random(seed))
        assert path.read_bytes() != before


def test_the_table_has_a_line_for_each_class_and_their_sum() -> None:
    tally = Tally("flips")
    tally.add("found", "a")
    tally.add("silent", "b", "what happened")
    assert tally.bad == 1
    lines = markdown([tally.row(), tally.row()]).splitlines()
    assert lines[2] == "| flips | 2 | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 |"
    assert lines[-1] == "| all | 4 | 2 | 0 | 2 | 0 | 0 | 0 | 0 | 0 |"
