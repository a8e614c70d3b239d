"""The study `attack` on networks that were trained by the command, and what it refuses."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tendril.data.errors import ConfigError, SubjectError
from tendril.study.attack.config import AttackConfig
from tendril.study.attack.study import AttackStudy
from tendril.study.core.study import StudyResult, run_study
from tendril.train.classifier.config import ClassifierConfig
from tendril.train.classifier.loop import train_classifier

from ..helpers.labelled import save_pictures

NO_LOGITS = """
from torch import nn
from tendril.models.subjects.module import subject_from_module
def maps():
    return subject_from_module(nn.Conv2d(3, 4, 3, bias=False).requires_grad_(False), input_size=28)
def other_size():
    return subject_from_module(nn.Flatten(), input_size=32)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two networks, and labelled pictures."""
    home = tmp_path_factory.mktemp("home")
    inputs = save_pictures(home / "train.parquet", 96)
    tested = save_pictures(home / "test.parquet", 60, seed=1)
    for seed in (0, 1):
        config = ClassifierConfig(
            *(inputs, tested),
            **{"width": 4, "batch_size": 16, "lr": 0.05, "epochs": 3, "seed": seed},  # type: ignore[arg-type]
            device="cpu",
            threads=1,
            home=str(home),
            name=f"net{seed}",
        )
        train_classifier(config)
    (home / "subject.py").write_text(NO_LOGITS)
    return home


def attack(home: Path, **fields: Any) -> StudyResult:
    given = {"subject": "net0", "inputs": str(home / "test.parquet"), "epsilon": 0.1}
    given |= {"images": 40, "steps": 5, "device": "cpu", "home": str(home)}
    return run_study(AttackStudy(), AttackConfig(**given | fields))


def test_a_report_has_the_curve_and_the_checks(home: Path) -> None:
    made = attack(home, others=("net1",))
    figures = made.figures
    assert figures["clean"] > 0.95
    assert figures["unbounded"] < 0.05
    assert figures["curve"][0]["accuracy"] == figures["clean"]
    assert figures["curve"][-1]["accuracy"] <= figures["curve"][1]["accuracy"]
    assert "40 images are right" in made.headline
    (transfer,) = figures["transfers"]
    assert transfer["source"] == "net1"
    page = made.report.read_text()
    assert "Can the attack be believed?" in page
    assert "attacked through net1" in page
    assert re.search(r"--subject net0-[0-9a-f]{12} ", page)  # stays true with more networks
    rows = list(csv.DictReader((made.report.parent / "curve.csv").read_text().splitlines()))
    assert [float(row["epsilon"]) for row in rows] == [0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.4]
    assert attack(home, others=("net1",)).reused
    other = attack(home, norm="l2", epsilon=0.5, seed=1)
    assert other.report != made.report
    assert other.figures["curve"][-1]["epsilon"] == 2.0


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epsilon": 8.0}, ConfigError, "units of pixels in 0..1, from 0 to 1 for the norm linf"),
    ({"epsilon": 8.0}, ConfigError, "For pixels in 0..255, give 0.03137"),
    ({"epsilon": 127.5, "norm": "l2"}, ConfigError, "from 0 to 48.5 for the norm l2; got 127.5"),
    ({"epsilons": (0.1, 4.0)}, ConfigError, "got 4. For pixels in 0..255"),
    ({"subject": ""}, ConfigError, "needs --subject and --inputs"),
    ({"subject": "FOLDER/subject.py:maps"}, SubjectError, r"logits of shape \[40, classes\]; the"),
    ({"others": ("FOLDER/subject.py:other_size",)}, ConfigError, "images of 28 pixels as net0"),
    ({"inputs": "FOLDER/three"}, ConfigError, r"left, right ... \(2\); got a, b, c ... \(3\)"),
    ({"inputs": "FOLDER/three/a"}, ConfigError, "needs the class of each image"),
    ({"subject": "nothing"}, SubjectError, "a run of `tendril train classifier`"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_what_does_not_fit_is_a_sentence(
    change: dict[str, Any], kind: type[Exception], message: str, home: Path
) -> None:
    for label in "abc":
        (home / "three" / label).mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28)).save(home / "three" / label / "0.png")

    def placed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(placed, value))
        return value.replace("FOLDER", str(home)) if isinstance(value, str) else value

    with pytest.raises(kind, match=message):
        attack(home, **{name: placed(value) for name, value in change.items()})


def test_labels_of_other_data_are_warned_of(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swapped = home / "swapped"
    for index in range(40):
        label = ("left", "right")[index % 2]
        (swapped / label).mkdir(parents=True, exist_ok=True)
        pixels = torch.zeros(28, 28, dtype=torch.uint8)
        pixels[:, slice(14, 28) if label == "left" else slice(0, 14)] = 120
        Image.fromarray(pixels.numpy()).save(swapped / label / f"{index}.png")
    attack(home, inputs=str(swapped), epsilon=0.01)
    assert "the labels may not be its own" in capsys.readouterr().err
