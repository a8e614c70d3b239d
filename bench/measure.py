"""Two things measured in turns, so that a machine whose speed drifts treats them alike."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

PAIRS = 7


@dataclass(frozen=True)
class Paired:
    """Seconds of ours and of the yardstick, pair by pair."""

    ours: list[float]
    yardstick: list[float]

    @property
    def ratio(self) -> float:
        """Median over pairs of the yardstick's time over ours: larger is better."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """The yardstick's time over ours, of each pair."""
        return [y / o for o, y in zip(self.ours, self.yardstick, strict=True)]


def paired(
    ours: Callable[[], object],
    yardstick: Callable[[], object],
    pairs: int = PAIRS,
    clear: Callable[[], object] = lambda: None,
) -> Paired:
    """Warm both up, then let them take turns, each first in every other pair; `clear` runs
    before each turn and is not timed."""
    ours(), yardstick()
    times: dict[str, list[float]] = {"ours": [], "yardstick": []}
    for pair in range(pairs):
        turns = [("ours", ours), ("yardstick", yardstick)]
        for name, run in turns if pair % 2 == 0 else reversed(turns):
            clear()
            times[name].append(seconds_of(run))
    return Paired(times["ours"], times["yardstick"])


def machine() -> dict[str, object]:
    """What the figures were measured on, and the commit that was measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "commit": _commit(),
    }


def seconds_of(run: Callable[[], object]) -> float:
    """How long something takes, with what it starts on a GPU."""
    synchronise()
    began = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - began


def synchronise() -> None:
    """Wait for what a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
