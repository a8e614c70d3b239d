"""Rows of vision transformers and convolutional networks equal the networks' own hidden states,
position by position and image by image."""

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tendril
from tendril.data.errors import ConfigError, SubjectError
from tendril.data.inputs.images import open_images
from tendril.data.store.reader import open_store
from tendril.harvest.config import HarvestConfig, VerifyConfig
from tendril.harvest.run import Harvest, harvest
from tendril.harvest.verify import verify_deep
from tendril.models.sites.receptive import receptive_field
from tendril.models.sites.splice import splicing
from tendril.models.sites.tokens import with_tokens
from tendril.models.subjects.load import load_subject

from ..conftest import ROOT
from ..helpers.vision_transformers import CASES, SIZE, Case

IMAGES = 9
FILE = """
import tendril
from tests.helpers.vision_transformers import CASES, SIZE

def make():
    return tendril.subject_from_module(CASES[{name!r}].make(), input_size=SIZE{more})
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = tmp_path_factory.mktemp("transformers") / "photos"
    photos.mkdir()
    for i in range(IMAGES):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    return photos


def made(photos: Path, home: Path, name: str, more: str = "", **fields: object) -> Harvest:
    """The store of all positions of a case."""
    (home / "subject.py").write_text(FILE.format(name=name, more=more))
    config = HarvestConfig(
        inputs=str(photos),
        subject=f"{home / 'subject.py'}:make",
        sites=(CASES[name].site,),
        per_input="all",
        device="cpu",
        dtype="float32",
        home=str(home),
    )
    return harvest(dataclasses.replace(config, **fields))


@torch.no_grad()
def own(photos: Path, case: Case) -> Tensor:
    """The network's own activations of each image by itself, as tokens [B, L, C]."""
    source, network = open_images(str(photos)), case.make()
    found = []
    for i in range(IMAGES):
        rgb_BCHW = torch.from_numpy(source.load(i, SIZE)).permute(2, 0, 1)[None].float() / 255
        acts = case.own(network, rgb_BCHW)
        if acts.ndim == 4:
            acts = acts.flatten(1, 2) if case.channels_last else acts.flatten(2).mT
        found.append(acts)
    return torch.cat(found)


NO_TIMM = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="needs timm, which is not installed"
)
NAMES = [pytest.param(n, marks=NO_TIMM) if n.startswith("timm") else n for n in CASES]
WITH_PREFIX = [n for n in NAMES if CASES[n if isinstance(n, str) else str(n.values[0])].prefix]


# of torch.jit, as timm is imported
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_networks_own_hidden_states(
    photos: Path, tmp_path: Path, name: str, batch: int
) -> None:
    case = CASES[name]
    done = made(photos, tmp_path, name, batch_size=batch)
    store, expected_BLC = open_store(done.store), own(photos, case)
    patches_BPC = expected_BLC[:, case.prefix :]
    rows, columns = case.grid
    assert store.grid(case.site) == case.grid
    assert patches_BPC.shape[1] == rows * columns
    got = store.read(case.site, np.arange(done.rows)).reshape(IMAGES, rows, columns, -1)
    expected = patches_BPC.unflatten(1, case.grid).numpy()
    for image in range(IMAGES):
        for y in range(rows):
            for x in range(columns):
                np.testing.assert_allclose(
                    got[image, y, x], expected[image, y, x], rtol=1e-3, atol=1e-5
                )


@pytest.mark.parametrize("name", WITH_PREFIX)
def test_the_class_token_and_all_tokens_are_stores_of_their_own(
    photos: Path, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    expected_BLC = own(photos, case).numpy()
    of_class = made(photos, tmp_path, name, tokens="class", per_input=10)
    assert of_class.rows == IMAGES
    got = open_store(of_class.store).read(case.site, np.arange(IMAGES))
    np.testing.assert_allclose(got, expected_BLC[:, 0], rtol=1e-3, atol=1e-5)
    of_all = made(photos, tmp_path, name, tokens="all")
    got = open_store(of_all.store).read(case.site, np.arange(of_all.rows))
    np.testing.assert_allclose(got, expected_BLC.reshape(got.shape), rtol=1e-3, atol=1e-5)
    stores = {of_class.store, of_all.store, made(photos, tmp_path, name).store}
    assert len(stores) == 3
    for store in stores:
        assert verify_deep(VerifyConfig(store=store), store).faults == []
