"""The identity of networks that come from no file."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tendril.models.sites.tokens import as_identified
from tendril.models.subjects.memory import remember
from tendril.models.subjects.module import subject_from_file
from tendril.models.subjects.structure import preprocess_digest, structure_digest

ROOT = Path(__file__).parents[2]
BEFORE = """
import torch
from torch import nn

SCALE = 2.0

def helper(x):
    return x * SCALE

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.mode = "plain"
        self.register_buffer("shift", torch.zeros(4, 1, 1), persistent=False)

    def forward(self, x, power=1):
        if self.mode in {"plain", "bare", "naked", "simple"}:
            return helper(self.conv(x) ** power + self.shift)
        return (lambda y: y + 1)(x)
"""
CHANGES = {
    "a constant": ("y + 1", "y + 2"),
    "a default": ("power=1", "power=2"),
    "a global": ("SCALE = 2.0", "SCALE = 3.0"),
    "a function": ("return x * SCALE", "return x + SCALE"),
    "an attribute": ('self.mode = "plain"', 'self.mode = "bare"'),
    "a setting": ("nn.Conv2d(3, 4, 3)", "nn.Conv2d(3, 4, 3, stride=2)"),
    "a buffer": ("torch.zeros(4", "torch.ones(4"),
    "a set": ('"naked", ', ""),
}


def digest(code: str) -> str:
    """The structure of a network whose code is in no file."""
    scope: dict[str, object] = {"__name__": "notebook"}
    exec(code, scope)
    net = scope["Net"]
    assert callable(net)
    return structure_digest(net())


@pytest.mark.parametrize("what", CHANGES)
def test_each_of_them_makes_another_network(what: str) -> None:
    old, new = CHANGES[what]
    assert old in BEFORE
    assert digest(BEFORE) != digest(BEFORE.replace(old, new))


def test_blank_lines_and_comments_make_no_other_network() -> None:
    assert digest(BEFORE) == digest(
        "\n\n# the same\n" + BEFORE.replace("x * SCALE", "x * SCALE  #")
    )


def test_the_structure_is_the_same_in_every_process() -> None:
    code = f"{BEFORE}\nfrom tendril.models.subjects.structure import structure_digest\n"
    code += "print(structure_digest(Net()))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_the_same_code_in_a_file_is_the_same_network(tmp_path: Path) -> None:
    code = BEFORE + "\ndef make():\n    torch.manual_seed(0)\n    return Net()\n"
    (tmp_path / "mine.py").write_text(code)
    filed = subject_from_file(f"{tmp_path / 'mine.py'}:make")
    scope: dict[str, Any] = {"__name__": "notebook"}
    exec(code, scope)
    _, passed = remember(scope["make"]())
    assert filed.identity != passed.identity
    assert as_identified(filed, passed.identity).identity == passed.identity
    assert as_identified(filed, filed.identity).identity == filed.identity


def test_preprocessing_counts_by_what_it_does() -> None:
    def half(rgb: Tensor) -> Tensor:
        return rgb / 2

    assert preprocess_digest(lambda rgb: rgb, 8) == ""
    assert preprocess_digest(half, 8) == preprocess_digest(lambda rgb: 0.5 * rgb, 8) != ""
    assert preprocess_digest(half, 8) != preprocess_digest(lambda rgb: rgb / 3, 8)
    assert preprocess_digest(lambda rgb: rgb[:, :1], 8) not in ("", preprocess_digest(half, 8))


def test_a_network_of_torch_alone_has_a_structure() -> None:
    first = structure_digest(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert first == structure_digest(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert first != structure_digest(nn.Sequential(nn.Linear(2, 2), nn.GELU()))
    assert first != structure_digest(nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)))
    assert torch.is_grad_enabled()
