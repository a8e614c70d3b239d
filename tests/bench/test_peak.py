"""The peak of a process, as benchmarks and tests of memory measure it."""

import subprocess
import sys

import numpy as np

from tendril.bench.peak import peak_memory


def test_the_peak_of_a_program_is_its_own() -> None:
    """And not that of the larger one that started it."""
    held = np.ones(2**26, np.float64)  # half a gigabyte
    code = "from tendril.bench.peak import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 256 < held.nbytes / 2**20 < peak_memory()
