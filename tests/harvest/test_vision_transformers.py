"""Rows of vision transformers and convolutional networks equal the networks' own hidden states,
position by position and image by image."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
import transformers
from PIL import Image
from torch import Tensor

from tendril.data.errors import ConfigError, SubjectError
from tendril.data.inputs.images import open_images
from tendril.data.store.reader import open_store
from tendril.harvest.config import HarvestConfig, VerifyConfig
from tendril.harvest.run import Harvest, harvest
from tendril.harvest.sites import suggested_sites
from tendril.harvest.verify import verify_deep
from tendril.models.sites.hooks import describe_sites
from tendril.models.sites.receptive import _patch, receptive_field
from tendril.models.sites.splice import splicing
from tendril.models.sites.tokens import with_tokens
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.module import subject_from_module
from tendril.study.measures.image_examples import cut, pixel_at

from ..helpers.vision_transformers import CASES, SIZE, Case, hooked, sequences

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


def subject_of(name: str, tmp_path: Path, more: str = "") -> str:
    (tmp_path / "subject.py").write_text(FILE.format(name=name, more=more))
    return f"{tmp_path / 'subject.py'}:make"


def test_the_field_of_a_patch_is_its_place_in_the_image(tmp_path: Path) -> None:
    """Of the patch embedding, gradients give the same field as the grid of patches."""
    subject = load_subject(subject_of("vit", tmp_path))
    sites = ["layers.1", "embeddings.patch_embeddings", "embeddings.patch_embeddings.projection"]
    subject = with_tokens(subject, "patches", sites)
    block, embedding, convolution = (receptive_field(subject, site) for site in sites)
    assert block.is_patch and embedding.is_patch and not convolution.is_patch
    assert block.size == embedding.size == convolution.size == (8, 8)
    for y in range(4):
        for x in range(4):
            at = float(y), float(x)
            assert block.pixel(*at) == convolution.pixel(*at) == (8 * x + 3.5, 8 * y + 3.5)


@pytest.mark.parametrize("patch", [7, 8, 14, 16])
def test_a_crop_of_a_patch_is_the_patch(patch: int) -> None:
    field = _patch(4 * patch, (4, 4))
    image = np.arange((4 * patch) ** 2 * 3, dtype=np.uint32).reshape(4 * patch, 4 * patch, 3)
    image = (image % 251).astype(np.uint8)
    for y, x in np.ndindex(4, 4):
        place = pixel_at(field, y, x)
        expected = image[y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
        assert np.array_equal(cut(image, place, field.size[0]), expected)


@torch.no_grad()
def test_only_the_patches_are_replaced(tmp_path: Path) -> None:
    """A patch moved by hand in the hidden state gives the same output as one that is spliced."""
    subject = with_tokens(load_subject(subject_of("vit", tmp_path)), "patches", ["layers.0"])
    x = torch.rand(2, 3, SIZE, SIZE)
    with splicing(subject.module, ("layers.0",), logits="layernorm") as splice:
        (maps_BCHW,) = splice.read(x).values()
        same = splice.run(x, {"layers.0": maps_BCHW})
        changed_BCHW = maps_BCHW.clone()
        changed_BCHW[:, :, 2, 1] = 7
        got = splice.run(x, {"layers.0": changed_BCHW})
    network = CASES["vit"].make()
    assert torch.equal(same, network(x).last_hidden_state)

    def move(_module: object, _inputs: object, output: Tensor) -> Tensor:
        output[:, 1 + 2 * 4 + 1] = 7
        return output

    network.get_submodule("layers.0").register_forward_hook(move)
    assert torch.equal(got, network(x).last_hidden_state)


def test_positions_are_drawn_over_patches_and_placed_on_maps(photos: Path, tmp_path: Path) -> None:
    """A convolution's map and tokens share positions; norms of the class token draw nothing."""
    sites = ("layers.1", "embeddings.patch_embeddings.projection")
    done = made(photos, tmp_path, "vit", sites=sites, per_input=5)
    store = open_store(done.store)
    y, x = (store.column(name)[:].reshape(IMAGES, 5) for name in ("y", "x"))
    assert y.max() < 4 and x.max() < 4
    case = CASES["vit"]
    tokens = own(photos, case)[:, 1:].unflatten(1, (4, 4)).numpy()
    rows = store.read("layers.1", np.arange(done.rows)).reshape(IMAGES, 5, -1)
    for i in range(IMAGES):
        np.testing.assert_allclose(rows[i], tokens[i, y[i], x[i]], rtol=1e-3, atol=1e-5)
    maps = own(photos, dataclasses.replace(case, own=hooked(sites[1])))
    maps = maps.unflatten(1, (4, 4)).numpy()
    rows = store.read(sites[1], np.arange(done.rows)).reshape(IMAGES, 5, -1)
    for i in range(IMAGES):
        np.testing.assert_allclose(rows[i], maps[i, y[i], x[i]], rtol=1e-3, atol=1e-5)


def test_tokens_may_be_declared(photos: Path, tmp_path: Path) -> None:
    """A name for four registers that no class token precedes, and patches of another shape."""
    more = ', prefix_tokens=["register"], patch_size=(4, 16)'
    done = made(photos, tmp_path, "vit", more=more)
    assert open_store(done.store).grid("layers.1") == (8, 2)
    assert open_store(done.store).spec["subject"]["tokens"] == {
        "keep": "patches",
        "prefix": ["register"],
        "patch": [4, 16],
    }
    with pytest.raises(SubjectError, match="needs a class token; none is known among the 17"):
        made(photos, tmp_path, "vit", more=more, tokens="class")


@pytest.mark.parametrize(
    ("name", "more", "fields", "error", "sentence"),
    [
        ("siglip_vision", "", {"tokens": "class"}, SubjectError, "none is known among the 16"),
        ("resnet", "", {"tokens": "class"}, ConfigError, "needs a site of tokens"),
        ("vit", "", {"rotations": 4}, ConfigError, "--rotations needs sites whose vectors depend"),
        (
            "vit",
            ", patch_size=5",
            {"tokens": "patches"},
            SubjectError,
            "6 x 6 patches of 5 pixels, with class before them; got 17 tokens",
        ),
        ("vit", ', prefix_tokens="class"', {}, SubjectError, "prefix_tokens must be a list of"),
        ("vit", ", patch_size=0", {}, SubjectError, "patch_size must be a number of pixels"),
    ],
)
def test_what_is_not_known_of_tokens_is_told(
    photos: Path,
    tmp_path: Path,
    name: str,
    more: str,
    fields: dict[str, object],
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        made(photos, tmp_path, name, more=more, **fields)


def test_a_convolutional_subject_keeps_its_name(photos: Path, tmp_path: Path) -> None:
    """Its identity says nothing of tokens, whatever is asked for."""
    stores = {made(photos, tmp_path, "resnet", tokens=t).store for t in ("auto", "patches", "all")}
    (store,) = stores
    assert "tokens" not in open_store(store).spec["subject"]


def test_a_folder_of_transformers_is_harvested_verified_and_found_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a relative path, the processor's pixels included; studies find the folder again."""
    network: Any = CASES["vit"].make()
    network.save_pretrained(tmp_path / "tiny")
    transformers.ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(
        tmp_path / "tiny"
    )
    monkeypatch.chdir(tmp_path)
    done = harvest(
        HarvestConfig(
            inputs=str(photos), subject="hf:tiny", sites=("layers.1",), device="cpu", home="home"
        )
    )
    monkeypatch.chdir(photos)
    store = str(tmp_path / done.store)
    assert verify_deep(VerifyConfig(store=store), store).faults == []


@torch.no_grad()
def test_declared_layouts_and_tokens_go_together() -> None:
    """A sequence with the batch second is declared, one with the channels first is found."""
    network, x = sequences(), torch.rand(3, 3, SIZE, SIZE)
    first_BLC = hooked("first")(network, x).transpose(0, 1)
    second_BLC = hooked("second")(network, x).mT
    plain = with_tokens(subject_from_module(network, input_size=SIZE), "auto", ["first"])
    with pytest.raises(SubjectError, match=r"layout=\{'first': 'LNC'\}"):
        describe_sites(plain, ["first"])
    declared = subject_from_module(network, input_size=SIZE, layout={"first": "LNC"})
    for site, expected_BLC in (("first", first_BLC), ("second", second_BLC)):
        for keep, expected in (
            ("patches", expected_BLC[:, 1:].mT.unflatten(2, (4, 4))),
            ("class", expected_BLC[:, 0]),
            ("all", expected_BLC),
        ):
            subject = with_tokens(declared, keep, [site])
            describe_sites(subject, [site])
            with splicing(subject.module, (site,)) as splice:
                (got,) = splice.read(x).values()
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(splice.run(x, {site: got}), network(x))
                moved = splice.run(x, {site: got + 1})
            assert not torch.equal(moved, network(x))


def test_two_choices_of_one_network_do_not_disturb_each_other() -> None:
    subject = subject_from_module(CASES["vit"].make(), input_size=SIZE)
    site = CASES["vit"].site
    subjects = {keep: with_tokens(subject, keep, [site]) for keep in ("patches", "class", "all")}
    grids = {keep: describe_sites(one, [site])[site].grid for keep, one in subjects.items()}
    assert grids == {"patches": (4, 4), "class": (1, 1), "all": (17, 1)}
    assert len({str(one.identity) for one in subjects.values()}) == 3
    assert subjects["all"].identity == subject.identity


def test_windows_of_attention_are_refused(photos: Path, tmp_path: Path) -> None:
    site = "encoder.layers.0.blocks.0.attention"
    with pytest.raises(SubjectError, match="several windows or positions per image"):
        made(photos, tmp_path, "swin", sites=(site,))


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("vit", "layers.0", "layers.1"),
        ("clip_vision", "encoder.layers.0", "encoder.layers.1"),
        ("torchvision_vit", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"),
    ],
)
def test_blocks_are_suggested_as_sites(name: str, first: str, last: str) -> None:
    subject = subject_from_module(CASES[name].make(), input_size=SIZE)
    assert suggested_sites(subject) == [first, last]
