"""Time two functions in turns, so that a machine whose speed drifts treats both alike.

torch is imported only where it is needed: processes whose memory is measured import this module.
"""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .config import PAIRS


@dataclass(frozen=True)
class Paired:
    """Seconds of ours and of the yardstick, pair by pair."""

    ours: list[float]
    yardstick: list[float]

    @property
    def ratio(self) -> float:
        """The median of `ratios`: larger is better."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """The yardstick's time over ours, for each pair."""
        return [y / o for o, y in zip(self.ours, self.yardstick, strict=True)]


def paired(
    ours: Callable[[], object],
    yardstick: Callable[[], object],
    pairs: int = PAIRS,
    clear: Callable[[], object] = lambda: None,
) -> Paired:
    """Time both functions in turns, after one call of each to warm up.

    Each goes first in every other pair. `clear` runs before each turn and is not timed.
    """
    ours(), yardstick()
    times: dict[str, list[float]] = {"ours": [], "yardstick": []}
    for pair in range(pairs):
        turns = [("ours", ours), ("yardstick", yardstick)]
        for name, run in turns if pair % 2 == 0 else reversed(turns):
            clear()
            times[name].append(seconds_of(run))
    return Paired(times["ours"], times["yardstick"])


def machine() -> dict[str, object]:
    """The machine and the commit that were measured."""
    import torch

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
    """The duration of a call, including the GPU work that it starts."""
    synchronise()
    began = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - began


def synchronise() -> None:
    """Wait until the GPU has finished, if torch is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> float:
    """The peak memory of this process in MiB.

    Read from VmHWM on Linux. `ru_maxrss` would not do: the kernel keeps it over exec, so that it
    starts at the peak of the parent process.
    """
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, where ru_maxrss counts bytes and starts at zero
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (most,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(most.split()[1]) / 1024


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
