from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tendril.data import _torchvision  # noqa: F401  before lucent imports torchvision
from tendril.data.errors import ConfigError
from tendril.data.inputs.images import open_images
from tendril.models.sites.hooks import recording
from tendril.models.subjects.inception import (
    NORMALISATIONS,
    InceptionV1,
    inception_sites,
    preprocess,
    response_norm,
)
from tendril.models.subjects.load import load_subject


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """The implementation of the package lucent, as an independent reference."""
    from lucent.modelzoo.inceptionv1.InceptionV1 import InceptionV1 as Lucents

    torch.manual_seed(0)
    return Lucents(redirected_ReLU=False).eval()


def test_every_site_equals_lucents(theirs: nn.Module) -> None:
    ours = InceptionV1("lucent").eval()
    ours.load_state_dict(theirs.state_dict())
    sites = inception_sites()
    images = preprocess(torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)))
    modules = {name: (name,) for names in sites.values() for name in names}
    with torch.no_grad(), recording(theirs, modules) as forward:
        expected = forward(images)
    with torch.no_grad(), recording(ours, sites) as forward:
        got = forward(images)
    assert len(sites) == 2 * 3 + 2 * 9 * 7 + 2
    for site, names in sites.items():
        reference = torch.cat([expected[name] for name in names], 1)
        error = (got[site] - reference).norm() / reference.norm()
        assert error < 1e-5, f"{site}: relative error {error:.2g}"
        assert reference.std() > 0, site


def test_gradients_equal_lucents(theirs: nn.Module) -> None:
    ours = InceptionV1("lucent", until="mixed3b").eval()
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    gradients = []
    for network in (ours, theirs):
        image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
        image.requires_grad_()
        with recording(network, {"mixed3b": ("mixed3b",)}) as forward:
            forward(preprocess(image))["mixed3b"].square().sum().backward()
        gradients.append(image.grad)
    ours_B3HW, theirs_B3HW = gradients
    error = (ours_B3HW - theirs_B3HW).abs().max() / theirs_B3HW.abs().max()
    assert error < 1e-5, f"relative error {error:.2g}"


def test_a_site_and_its_twin_before_the_relu() -> None:
    sites = {s: inception_sites()[s] for s in ("mixed3b", "mixed3b_pre_relu", "mixed3b_5x5")}
    network = InceptionV1(until="mixed3b").eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), recording(network, sites) as forward:
        acts = forward(image)
    assert torch.equal(network(image), acts["mixed3b"])
    assert torch.equal(acts["mixed3b_pre_relu"].relu(), acts["mixed3b"])
    assert torch.equal(acts["mixed3b"][:, 320:416], acts["mixed3b_5x5"])


@pytest.mark.parametrize("preset", NORMALISATIONS)
def test_response_normalisation_equals_torchs_in_values_and_gradients(preset: str) -> None:
    n = NORMALISATIONS[preset]
    fast, slow = (
        torch.rand(2, 20, 4, 4, generator=torch.Generator().manual_seed(0)).mul(60).requires_grad_()
        for _ in range(2)
    )
    weight = torch.linspace(-1, 1, 20)[:, None, None]
    ours = response_norm(fast, n)
    theirs = F.local_response_norm(slow, size=n.size, alpha=n.alpha, beta=n.beta, k=n.k)
    torch.testing.assert_close(ours, theirs)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad)


@pytest.mark.parametrize("size", [64, 65, 66, 67])
def test_padding_is_tensorflows_at_even_and_odd_sizes(size: int) -> None:
    shapes = []
    for until in ("conv2d0", "conv2d2", "mixed3b", "mixed4a"):
        shapes.append(InceptionV1(until=until)(torch.zeros(1, 3, size, size)).shape[-1])
    halves = [size]
    for _ in range(4):
        halves.append(-(-halves[-1] // 2))
    assert shapes == halves[1:]


def test_a_pass_that_stops_at_the_5x5_branch_does_not_run_the_others() -> None:
    network, ran = InceptionV1(until="mixed3b").eval(), []
    network.mixed3b_3x3.register_forward_hook(lambda *_: ran.append("3x3"))
    with torch.no_grad(), recording(network, {"site": ("mixed3b_5x5",)}) as forward:
        forward(torch.zeros(1, 3, 32, 32))
    assert ran == []


def test_the_normalisations_differ_and_only_known_ones_are_taken() -> None:
    lucent, sibling = InceptionV1("lucent", "conv2d1"), InceptionV1("sibling", "conv2d1")
    sibling.load_state_dict(lucent.state_dict())
    image = torch.randn(1, 3, 32, 32) * 60
    assert not torch.allclose(lucent(image), sibling(image))
    with pytest.raises(ConfigError, match="lucent, sibling"):
        InceptionV1("batch")
    with pytest.raises(ConfigError, match="mixed3b"):
        InceptionV1(until="mixed9")


def top1(shared: Path, limit: int | None) -> float:
    """Top-1 accuracy of the real weights on photographs."""
    weights = shared / "weights" / "inceptionv1_sibling.safetensors"
    subject = load_subject("inceptionv1", weights=str(weights))
    classes = (shared / "weights" / "inceptionv1_classes.txt").read_text().splitlines()
    number = {line.split()[0]: i for i, line in enumerate(classes)}
    source = open_images(str(shared / "images"), limit)
    right = 0
    for i in range(len(source)):
        pixels = torch.from_numpy(source.load(i, subject.input_size)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            answer = subject.module(subject.preprocess(pixels.float() / 255)).argmax().item()
        right += answer == number[source.name(i).split("_")[0]]
    return right / len(source)


def test_real_weights_name_photographs(shared: Path) -> None:
    assert top1(shared, 50) >= 0.74  # 0.82, minus two standard deviations for 50 images


@pytest.mark.slow
def test_real_weights_name_all_photographs(shared: Path) -> None:
    assert top1(shared, None) >= 0.82
