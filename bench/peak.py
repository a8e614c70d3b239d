"""The most memory that a process has held."""

import resource
from pathlib import Path


def peak_memory() -> float:
    """Megabytes. On Linux not `ru_maxrss`: a program begins with that of whoever started it (the
    kernel keeps it over exec), which may be larger."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, which counts in bytes and begins at nothing
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (most,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(most.split()[1]) / 1024
