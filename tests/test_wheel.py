"""A wheel holds all that the commands need, as real files, and runs without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT

STAGES = """
import sys
from pathlib import Path
import tendril
from tendril.__main__ import run_stage
assert Path(tendril.__file__).is_relative_to(sys.argv[1]), tendril.__file__
run_stage(["harvest", "demo", "--limit", "60", "--device", "cpu"])
run_stage(["train", "demo", "--steps", "20", "--device", "cpu"])
made = run_stage(["study", "curves", "--orientation-step", "45", "--device", "cpu"])
print(made.result["report"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a wheel of this checkout is unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_holds_every_file_and_no_link(installed: Path) -> None:
    there = {p.relative_to(installed / "tendril") for p in (installed / "tendril").rglob("*")}
    assert not any(p.is_symlink() for p in installed.rglob("*"))
    for package in ("data", "models", "harvest", "train", "study", "bench"):
        tracked = {p for p in (ROOT / package).rglob("*.*") if "__pycache__" not in p.parts}
        missing = {p.relative_to(ROOT) for p in tracked} - there
        assert not missing, missing
    assert Path("py.typed") in there


def test_a_wheel_runs_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    environment.pop("TENDRIL_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", STAGES, str(installed)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = tmp_path / done.stdout.splitlines()[-1]
    assert "Curve detectors at mixed3b_5x5 of planted" in report.read_text()
