"""What `--help` costs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRIED = 3  # times, of which the best counts: the machine may be busy


def check_help(package: str, *words: str, shows: str, never: tuple[str, ...]) -> None:
    """`tendril PACKAGE WORDS --help` tells of the flag `shows`, in less than half a second of
    a core, whoever else is busy, and imports none of `never`."""
    code = f"import sys, runpy; sys.argv = {['tendril', package, *words, '--help']}\n"
    code += "try: runpy.run_module('tendril', run_name='__main__')\n"
    code += f"except SystemExit: sys.exit(', '.join({set(never)} & sys.modules.keys()) or 0)"
    times = []
    for _ in range(TRIED):
        began = os.times()
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        ended = os.times()
        assert done.returncode == 0, done.stderr
        assert shows in done.stdout
        times.append(sum(ended[2:4]) - sum(began[2:4]))
    assert min(times) < 0.5
