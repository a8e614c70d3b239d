"""Three commands lead from photographs to a page of features, for a ResNet and a small ViT."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tendril.__main__ import run_stage
from tendril.data.cli import Outcome

CLASSES = ("blue", "green", "red")
SIZE = 64
MINE = """
import torch
import torchvision

import tendril

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def subject(net):
    normalise = torchvision.transforms.Normalize(MEAN, STD)
    return tendril.subject_from_module(net, input_size=64, preprocess=normalise)


def resnet():
    torch.manual_seed(0)
    return subject(torchvision.models.resnet18(weights=None))


def vit():
    torch.manual_seed(0)
    shape = dict(num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
    return subject(torchvision.models.VisionTransformer(image_size=64, patch_size=16, **shape))
"""
NETWORKS = {  # the site, and the side of its map
    "resnet": ("layer2", 8),
    "vit": ("encoder.layers.encoder_layer_1", 4),
}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images of a colour in a subfolder of its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TENDRIL_HOME", raising=False)
    Path("mine.py").write_text(MINE)
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 90, (SIZE, SIZE, 3))
        pixels[16 * (number % 4) :, 10:50, 2 - number % 3] += 150
        folder = Path("photos") / CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return Path("photos")


def run(*words: str) -> Any:
    """The outcome of a command."""
    made = run_stage([*words, "--device", "cpu"])
    assert isinstance(made, Outcome)
    assert made.sentence
    return made


@pytest.mark.many_steps
@pytest.mark.parametrize("name", NETWORKS)
def test_three_commands_make_a_page_of_features(name: str, photos: Path) -> None:
    site, side = NETWORKS[name]
    made = run(
        *("harvest", "images", "--subject", f"mine.py:{name}"),
        *("--inputs", str(photos), "--sites", site),
    )
    assert made.result["rows"] == 24 * 10
    assert made.next_command.startswith("tendril train topk --store ")
    trained = run("train", "topk", "--site", site, "--k", "8", "--latents", "64", "--steps", "60")
    assert trained.next_command.startswith("tendril study features --run topk-")
    studied = run("study", "features")
    assert studied.result["maps"] == "network" and studied.result["classes"] == 3
    assert 1 <= studied.result["classes_median"] <= 3
    page = Path(str(studied.result["report"]))
    text = page.read_text()
    assert all(kind in (page.parent / "data" / "index.js").read_text() for kind in CLASSES)
    assert f"Features at {site} of mine.py:{name}" in text
    pictures = sorted((page.parent / "data" / "images").iterdir())
    assert pictures
    with Image.open(pictures[0]) as picture:
        assert picture.size == (SIZE, SIZE)
    call = (page.parent / "data" / "000.js").read_text()
    entries = json.loads(call[call.index("(") + 1 : call.rindex(")")].partition(",")[2])
    seen = [entry for entry in entries if entry["fired"]]
    assert len(seen) > 30
    example = seen[0]["strongest"][0]
    _, _, _, y, x, value, level, cells, _ = example
    assert 0 <= y < side and 0 <= x < side and value > 0 and level is None
    count = sum(int(n or 1) for n in re.findall(r"(\d*)\D", cells))
    assert count == side * side
    for entry in seen:
        assert abs(sum(part for _, part in entry["classes"]) - 1) < 1e-2
