"""One trial: a forked process runs an action, and the parent sees how it ends.

The parent has imported everything and computed nothing, so that a fork takes ten milliseconds and
no thread is lost by it. Whatever a damaged file does to the child ends there: a crash, a hang, a
call of `sys.exit`.
"""

import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from tendril.__main__ import run_stage
from tendril.data.cli import DONE, MISTAKE, run_command
from tendril.data.errors import TendrilError

Kind = Literal["done", "refused", "traceback", "hang", "killed"]
LIMIT = 20.0  # seconds after which an action hangs
KEPT = 9000  # characters of the output that are kept


@final
@dataclass(frozen=True)
class Trial:
    """How an action ended: done with a value, refused in a sentence, or in one of the wrong ways.

    `text` is the end of what it printed; of a refusal, the sentence.
    """

    kind: Kind
    value: Any = None
    text: str = ""
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        """True for an end that no input may cause: a hang, a traceback, or being killed."""
        return self.kind not in ("done", "refused")

    @property
    def sentence(self) -> str:
        """The last line of the text."""
        lines = [line for line in self.text.splitlines() if line.strip(" │╭╮╰╯─")]
        return lines[-1].strip() if lines else ""


def command(*words: str) -> Callable[[], object]:
    """The action of a command line, with the exit status that `tendril` has."""
    return lambda: run_command(lambda: run_stage(words))


def commands(lines: Sequence[Sequence[str]]) -> Callable[[], object]:
    """The action of several commands; the first that fails ends it."""

    def run() -> None:
        for words in lines:
            try:
                command(*words)()
            except SystemExit as left:
                if left.code != DONE:
                    raise

    return run


def attempt(
    action: Callable[[], object],
    folder: Path,
    *,
    limit: float = LIMIT,
    before: Callable[[], object] | None = None,
) -> Trial:
    """Run an action in a forked process whose current folder is `folder`.

    The action's value must fit into JSON. `before` runs in the child first, e.g. to install a
    guard. The child is killed after `limit` seconds.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as told:
        with warnings.catch_warnings():  # that a process with threads forks
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _in_child(action, folder, printed.fileno(), told.fileno(), before)
        status = _wait(child, limit)
        seconds = time.monotonic() - began
        for file in (printed, told):
            file.seek(0)
        text = printed.read().decode(errors="replace")[-KEPT:]
        content = told.read()
    if status is None:
        return Trial("hang", None, text, seconds)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Trial("killed", None, text, seconds)
    if not content:  # the process ended by itself: a segmentation fault, os._exit
        return Trial("traceback", None, f"{text}\nended with wait status {status}", seconds)
    found = json.loads(content)
    return Trial(found["kind"], found["value"], found["text"] or text, seconds)


def _in_child(
    action: Callable[[], object],
    folder: Path,
    printed: int,
    told: int,
    before: Callable[[], object] | None,
) -> None:
    """Run the action, write how it ended to the file `told`, and leave."""
    os.setsid()
    handle = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((handle, 0), (printed, 1), (printed, 2)):
        os.dup2(source, target)
    os.chdir(folder)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    value, text = None, ""
    kind: Kind = "done"
    try:
        if before is not None:
            before()
        value = action()
    except TendrilError as error:
        kind, text = "refused", str(error)
    except SystemExit as left:
        if left.code == MISTAKE:
            kind = "refused"
        elif left.code != DONE:
            kind, text = "traceback", f"exit status {left.code}"
    except BaseException:  # also KeyboardInterrupt: whatever it is, the parent must hear of it
        kind, text = "traceback", traceback.format_exc()[-KEPT:]
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(told, json.dumps({"kind": kind, "value": value, "text": text}).encode())
    os._exit(0)


def _wait(child: int, limit: float) -> int | None:
    """The wait status of a child; None if it had to be killed."""
    handle = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([handle], [], [], limit)
    finally:
        os.close(handle)
    if not ready:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status if ready else None
