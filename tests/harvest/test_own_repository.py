"""A network in the user's own repository, whose packages are called like Tendril's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Conv2d(3, 4, 3, stride=16)

    def forward(self, x):
        from models.late import scaled  # imported only when the network runs
        return scaled(self.body(x))
"""
NEVER = 'raise RuntimeError("Tendril imported a module of the user\'s repository")'
FILES = {
    "mine.py": "from models.net import Net\n\ndef make():\n    return Net()\n",
    "models/__init__.py": "",
    "models/net.py": NET,
    "models/late.py": "def scaled(acts):\n    return 2 * acts\n",
    "data/__init__.py": NEVER,
    "train.py": NEVER,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_network_in_a_repository_with_packages_of_the_same_names(repository: Path) -> None:
    """With the script, and with `python -m`, which puts the folder first on `sys.path`."""
    flags = ["--subject", "mine.py:make", "--inputs", "dead-leaves", "--limit", "8"]
    flags += ["--sites", "body", "--device", "cpu"]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONSAFEPATH", "TENDRIL_HOME")
    }
    script = Path(sys.executable).with_name("tendril")
    made = []
    for command in ([str(script)], [sys.executable, "-m", "tendril"]):
        done = subprocess.run(
            [*command, "harvest", "images", *flags],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made.append(json.loads(done.stdout.splitlines()[-1]))
    assert [m["rows"] for m in made] == [80, 80]
    assert [m["reused"] for m in made] == [False, True]
    assert {p.name for p in repository.iterdir()} == {
        "mine.py",
        "models",
        "data",
        "train.py",
        "store",
    }
