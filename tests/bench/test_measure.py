"""The peak memory of a process, as benchmarks and tests of memory measure it."""

import subprocess
import sys

import numpy as np

from tendril.bench.measure import peak_memory


def test_the_peak_of_a_process_does_not_count_its_parent() -> None:
    held = np.ones(2**26, np.float64)  # half a gigabyte
    code = "from tendril.bench.measure import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 256 < held.nbytes / 2**20 < peak_memory()
