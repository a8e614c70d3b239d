"""Images that can no longer be read are left out of a study's examples, which goes on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.reader import Store, open_store
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
from tendril.models.sites.receptive import receptive_field
from tendril.models.sites.window import find_receptive_patch
from tendril.study.measures.image_examples import Row, cut_patches
from tendril.study.measures.turned_patches import record_turned

from ..conftest import ROOT
from ..helpers import mine


@pytest.fixture
def harvested(tmp_path: Path) -> tuple[Store, ImageSource]:
    """A store of four images, and the images, of which number 1 has been damaged since."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    done = harvest(
        HarvestConfig(
            inputs=str(photos),
            subject=f"{ROOT / 'tests' / 'helpers' / 'mine.py'}:network",
            sites=("early",),
            per_input=2,
            device="cpu",
            home=str(tmp_path),
        )
    )
    source = open_images(str(photos))
    (photos / "1.png").write_bytes(b"broken")
    return open_store(done.store), source


def test_of_examples(
    harvested: tuple[Store, ImageSource], capsys: pytest.CaptureFixture[str]
) -> None:
    store, source = harvested
    best = [[Row(9.0, 0), Row(8.0, 2), Row(7.0, 4)], [Row(6.0, 3)]]
    field = receptive_field(mine.network(), "early")
    first, second = cut_patches(store, "early", field, source, 32, best)
    assert [(p.name, p.value) for p in first] == [("0.png", 9.0), ("2.png", 7.0)]
    assert second == []
    said = capsys.readouterr().err
    assert said.count("the image 1.png cannot be read (UnidentifiedImageError") == 1


def test_of_turned_patches(harvested: tuple[Store, ImageSource]) -> None:
    store, source = harvested
    patch = find_receptive_patch(mine.network(), ["early"])
    best = [[Row(9.0, 0), Row(8.0, 2)], [Row(7.0, 3)]]
    angles_A = np.array([0.0, 90.0])

    def respond(x_ND: np.ndarray) -> np.ndarray:
        return x_ND[:, :2]

    device = torch.device("cpu")
    first, second = record_turned(
        patch, store, "early", source, 32, best, respond, angles_A, device
    )
    assert first.shape == (1, 2, 2) and second.shape == (0, 2, 2)
    whole = dataclasses.replace(source, fetch=lambda *_: source.load(0, 32))
    all_of_it, _ = record_turned(patch, store, "early", whole, 32, best, respond, angles_A, device)
    np.testing.assert_array_equal(all_of_it[:1], first)
