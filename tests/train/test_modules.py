"""How much of Tendril a training run imports."""

import os
import subprocess
import sys
from pathlib import Path

from ..helpers import sparse

ROOT = Path(__file__).parents[2]
MOST = 40
CODE = """
import runpy, sys
try:
    runpy.run_module("tendril", run_name="__main__")
finally:
    ours = [n for n, m in sys.modules.items() if n.startswith("tendril.") and m]
    files = [n for n in ours if not hasattr(sys.modules[n], "__path__")]
    print(*sorted(files), file=sys.stderr)
"""


def test_training_imports_few_modules(tmp_path: Path) -> None:
    """Only what this objective needs: no sweep, no other objective, no other kind of dictionary."""
    sparse.make_store(tmp_path, {"here": sparse.vectors(1600, sparse.directions())})
    flags = [*("--latents", "64", "--k", "3", "--steps", "20"), *("--batch-size", "64")]
    flags += ["--device", "cpu", "--dead-after", "64"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, "train", "topk", *flags, "--home", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = done.stderr.splitlines()[-1].split()
    assert "tendril.train.loop" in modules
    assert len(modules) <= MOST, modules
