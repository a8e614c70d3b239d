"""What every command shares: a mistake told in a sentence, and one JSON object at the end."""

import errno
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from .errors import TendrilError

DONE, FAULT, MISTAKE, INTERRUPTED = 0, 1, 2, 130

# Threads of OpenMP that have done their part of a layer look for the next one that often before
# they sleep. By default it is a millisecond's worth, during which nothing else gets the core.
SPINS = "10000"


def run_command(body: Callable[[], Mapping[str, object] | None]) -> NoReturn:
    """Run a command and leave with its exit status; `body` is the first to import torch.

    What `body` returns becomes the last line of stdout, as JSON. A `TendrilError`, or a full
    disk, is one sentence on stderr and status 2; Ctrl-C is status 130; any other exception is
    a fault of ours and keeps its traceback (status 1).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    try:
        result = body()
        if result is not None:
            print(as_json(result), flush=True)
    except BrokenPipeError:  # what read stdout has seen enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except TendrilError as error:
        note(f"error: {error}")
        sys.exit(MISTAKE)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        note(f"error: the disk is full{where}; make room, then run the same command again.")
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        note("stopped; the same command goes on from here.")
        sys.exit(INTERRUPTED)
    sys.exit(DONE)


def as_json(result: Mapping[str, object]) -> str:
    """One line of strict JSON: what is not finite becomes null."""
    try:
        return json.dumps(result, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(result), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def note(message: str) -> None:
    """A line for the person at the terminal; stdout belongs to the result."""
    print(message, file=sys.stderr, flush=True)
