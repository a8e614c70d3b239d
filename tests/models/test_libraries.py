"""Networks of transformers, torchvision and timm as subjects, from local files."""

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
import torchvision
import transformers
from torch import Tensor

from tendril.data.errors import ConfigError, SubjectError, WeightsNotFoundError
from tendril.models.sites.hooks import recording
from tendril.models.sites.tokens import with_tokens
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import Subject, site_modules

from ..helpers.vision_transformers import VIT, of_transformers

NO_TIMM = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="needs timm, which is not installed"
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection fails, and says so."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a local file must not ask the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def saved(folder: Path, network: Any, processor: str, **settings: object) -> str:
    """The name of a subject in a folder, with an image processor of 32 pixels."""
    network.save_pretrained(folder)
    kind: Any = getattr(transformers, processor)
    kind(**{"size": {"height": 32, "width": 32}, **settings}).save_pretrained(folder)
    return f"hf:{folder}"


def read(subject: Subject, site: str, tokens: str, rgb_BCHW: Tensor) -> Tensor:
    """The activations of a site."""
    subject = with_tokens(subject, tokens, [site])
    with torch.no_grad(), recording(subject.module, site_modules(subject, [site])) as forward:
        return forward(subject.preprocess(rgb_BCHW))[site]


@torch.no_grad()
def hidden(network: Any, processor: Any, rgb_BCHW: Tensor, layer: int) -> Tensor:
    """A hidden state, of pixels that the network's own processor prepared."""
    images = [(image * 255).byte().permute(1, 2, 0).numpy() for image in rgb_BCHW]
    taken = processor(images, return_tensors="pt", do_resize=False)
    found = network(taken["pixel_values"], output_hidden_states=True).hidden_states[layer]
    assert isinstance(found, Tensor)
    return found


def images() -> Tensor:
    """Images whose pixels are bytes."""
    pixels = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    return pixels / 255


@pytest.mark.parametrize(
    ("kind", "processor", "site"),
    [
        ("ViT", "ViTImageProcessor", "layers.1"),
        ("Dinov2", "BitImageProcessor", "encoder.layer.1"),
        ("SiglipVision", "SiglipImageProcessor", "encoder.layers.1"),
    ],
)
def test_a_folder_of_transformers_is_read_through_its_own_processor(
    tmp_path: Path, kind: str, processor: str, site: str
) -> None:
    network = of_transformers(kind)()
    crop = {"do_center_crop": False} if processor == "BitImageProcessor" else {}
    mean = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    name = saved(tmp_path / "tiny", network, processor, **crop, **mean)
    subject = load_subject(name)
    assert (subject.name, subject.input_size) == ("tiny", 32)
    own: Any = transformers.AutoImageProcessor.from_pretrained(tmp_path / "tiny")
    expected_BLC = hidden(network, own, images(), 2)
    got = read(subject, site, "all", images())
    torch.testing.assert_close(got, expected_BLC, rtol=1e-4, atol=1e-5)
    patches = read(subject, site, "patches", images())
    assert patches.shape == (3, 32, 4, 4)
    assert load_subject(name).identity == subject.identity
    assert str(tmp_path) not in json.dumps(dict(subject.identity))


def test_the_identity_holds_what_decides_activations(tmp_path: Path) -> None:
    network: Any = of_transformers("ViT")()
    first = load_subject(saved(tmp_path / "tiny", network, "ViTImageProcessor")).identity
    again = load_subject(
        saved(tmp_path / "tiny", network, "ViTImageProcessor", image_mean=[0.0, 0.0, 0.0])
    ).identity
    assert first["pixels"] != again["pixels"] and first["weights"] == again["weights"]
    network.config.layer_norm_eps = 0.1
    other = load_subject(saved(tmp_path / "tiny", network, "ViTImageProcessor")).identity
    assert other["config"] != first["config"] and other["weights"] == first["weights"]


def test_a_classifier_keeps_its_head_and_a_model_of_two_kinds_gives_its_images(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=32, num_labels=7, **VIT)
    classifier = transformers.ViTForImageClassification(config)
    subject = load_subject(saved(tmp_path / "classifier", classifier, "ViTImageProcessor"))
    assert subject.module(subject.preprocess(images())).logits.shape == (3, 7)
    text = {k: v for k, v in VIT.items() if k != "patch_size"}
    both = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**text, "vocab_size": 99}, vision_config={"image_size": 32, **VIT}
        )
    )
    square = {"height": 32, "width": 32}
    name = saved(tmp_path / "both", both, "CLIPImageProcessor", crop_size=square)
    subject = load_subject(name)
    own: Any = transformers.AutoImageProcessor.from_pretrained(tmp_path / "both")
    (site,) = (s for s in subject.sites if s.endswith("encoder.layers.1"))
    expected_BLC = hidden(both.vision_model, own, images(), 2)
    torch.testing.assert_close(
        read(subject, site, "all", images()), expected_BLC, rtol=1e-4, atol=1e-5
    )
    assert read(subject, site, "class", images()).shape == (3, 32)


def test_torchvision_takes_a_file_and_drawn_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    subject = load_subject("torchvision:resnet18", weights=str(tmp_path / "mine.pth"))
    assert (subject.name, subject.input_size) == ("resnet18", 224)
    assert subject.identity["pixels"]["mean"] == [0.485, 0.456, 0.406]
    for key, value in network.state_dict().items():
        assert torch.equal(value, subject.module.state_dict()[key]), key
    drawn = [load_subject("torchvision:resnet18", weights=f"random:{s}") for s in (1, 1, 2)]
    assert drawn[0].identity == drawn[1].identity != drawn[2].identity
    assert drawn[0].identity["drawn"] == "random:1"


@NO_TIMM
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, as timm is imported
def test_timm_takes_a_folder_a_file_and_drawn_weights(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5)
    timm.models.save_for_hf(network, tmp_path / "folder")
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    subject = load_subject(f"timm:{tmp_path / 'folder'}")
    got = read(subject, "blocks.2", "patches", torch.rand(2, 3, 224, 224))
    assert got.shape == (2, 192, 14, 14)
    assert torch.equal(subject.module.state_dict()["cls_token"], network.cls_token)
    drawn = [load_subject("timm:vit_tiny_patch16_224", weights="random:4") for _ in range(2)]
    assert drawn[0].identity == drawn[1].identity


@pytest.mark.parametrize(
    ("subject", "weights", "error", "sentence"),
    [
        ("torchvision:resnet81", "", SubjectError, "Near names are .*resnet18"),
        ("torchvision:resnet18", "none.pth", WeightsNotFoundError, "there is no file none.pth"),
        ("torchvision:resnet18", "random:x", ConfigError, "whole number of at least 0; got 'x'"),
        ("hf:./none", "", SubjectError, "there is no folder './none'"),
        ("hf:tiny", "random", ConfigError, "hf:tiny has its own weights"),
    ],
)
def test_what_is_no_subject_is_told(
    subject: str, weights: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        load_subject(subject, weights=weights)


def test_a_folder_without_a_processor_and_one_of_text_are_told(tmp_path: Path) -> None:
    of_transformers("ViT")().save_pretrained(tmp_path / "bare")  # type: ignore[operator]
    with pytest.raises(SubjectError, match=r"needs an image processor.*preprocessor_config"):
        load_subject(f"hf:{tmp_path / 'bare'}")
    text = {k: v for k, v in VIT.items() if k != "patch_size"}
    transformers.BertModel(transformers.BertConfig(vocab_size=99, **text)).save_pretrained(
        tmp_path / "text"
    )
    with pytest.raises(SubjectError, match=r"must be a vision network; .*text is a BertModel"):
        load_subject(f"hf:{tmp_path / 'text'}")


def test_weights_that_cannot_be_fetched_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(SubjectError, match=r"weights of torchvision:alexnet cannot be loaded.*--w"):
        load_subject("torchvision:alexnet")
