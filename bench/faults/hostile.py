"""Stores, runs and folders that somebody else made to do harm, read under a guard.

The guard is an audit hook, which sees every call in the process: it records files that are
written or removed outside the home, programs that are started and addresses that are connected
to. Hostile code writes a marker outside the home as soon as it runs.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .attacks import MARKER, PRECIOUS, Attack, attacks
from .contents import changes, contents
from .findings import Ending, Tally
from .flips import taken
from .home import EXPORT, Lab
from .operations import is_change
from .trial import Trial, command, commands

STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn"}
NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request"}
ALLOWED = ("/dev/", "/proc/")


def hostile(lab: Lab) -> list[Tally]:
    """Try every attack with each of its commands; one tally."""
    tally = Tally("hostile stores and runs")
    lab.restore("made")
    lab.needed(commands([EXPORT]))
    lab.keep("exported")
    for attack in attacks(lab):
        for words in attack.lines:
            tally.add(*tried(lab, attack, words))
    return [tally]


def tried(lab: Lab, attack: Attack, words: Sequence[str]) -> tuple[Ending, str, str]:
    """Plant an attack and run one command under the guard."""
    lab.restore("exported")
    outside = lab.folder / PRECIOUS
    shutil.rmtree(outside, ignore_errors=True)
    marker = lab.folder / MARKER
    marker.unlink(missing_ok=True)
    _precious(outside)
    attack.plant(lab)
    marker.unlink(missing_ok=True)
    before = contents(outside)
    heard = lab.folder / "heard"
    heard.write_text("")
    guard = partial(listen, lab.home, heard, (str(lab.folder / "state"), str(lab.folder / "cache")))
    trial = lab.run(lambda: taken(command(*words)), guard=guard)
    case = f"{attack.name}: tendril {' '.join(words)}"
    ending, what = _judged(trial, marker, changes(contents(outside), before), heard)
    return ending, case, what


def _judged(trial: Trial, marker: Path, touched: list[str], heard: Path) -> tuple[Ending, str]:
    calls = heard.read_text().splitlines()
    if marker.exists():
        return "touched outside", f"hostile code ran: {trial.text[-300:]}"
    if touched:
        return "touched outside", "; ".join(touched[:5])
    if calls:
        return "touched outside", "; ".join(calls[:5])
    if trial.bad:
        return ("hang" if trial.kind == "hang" else "traceback"), trial.text
    return ("found" if trial.value == "refused" or trial.kind == "refused" else "harmless"), ""


def listen(home: Path, heard: Path, allowed: Sequence[str]) -> None:
    """Record what this process does outside the home, from now on, in the file `heard`."""
    handle = os.open(heard, os.O_WRONLY | os.O_APPEND)
    inside = (str(home.resolve()), *allowed, *ALLOWED, f"{tempfile.gettempdir()}/pymp-")
    busy = [False]

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if busy[0]:
            return
        busy[0] = True
        try:
            suspicious = event in STARTS or event in NETWORK
            if is_change(event, arguments) and isinstance(arguments[0], str | bytes):
                path = _place(os.fsdecode(arguments[0]), follow=event == "open")
                suspicious = not path.startswith(inside) and not _is_bytecode(path)
            if suspicious:
                os.write(handle, f"{event} {arguments!r}"[:300].encode() + b"\n")
        finally:
            busy[0] = False

    sys.addaudithook(hear)


def _place(path: str, *, follow: bool) -> str:
    """Where a path lies. Opening follows a link; removing and renaming are done to it itself."""
    if follow:
        return os.path.realpath(path)
    above, name = os.path.split(path.rstrip("/"))
    return os.path.join(os.path.realpath(above or "."), name)  # noqa: PTH118


def _is_bytecode(path: str) -> bool:
    return "__pycache__" in path


def _precious(outside: Path) -> None:
    """Files of every kind that Tendril writes or removes."""
    for name in ("index.js", "000.js", "result.json", "config.json", "metrics.csv", "c/0/0", "0"):
        path = outside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
