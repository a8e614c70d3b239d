import pytest
import torch
from torch import Tensor, nn

from tendril.data import _torchvision  # noqa: F401  before torchvision
from tendril.data.errors import UnknownSiteError
from tendril.models.sites.receptive import receptive_field
from tendril.models.subjects import inception
from tendril.models.subjects.inception import InceptionV1
from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject


@pytest.fixture(scope="module")
def lucids() -> Subject:
    """InceptionV1 up to mixed4b, with random weights."""
    torch.manual_seed(0)
    network = InceptionV1(until="mixed4b").eval().requires_grad_(False)
    return Subject("inceptionv1", network, inception.preprocess, 224, inception.inception_sites())


def of(*layers: nn.Module, size: int = 32) -> Subject:
    torch.manual_seed(0)
    return subject_from_module(nn.Sequential(*layers), input_size=size)


def conv(kernel: int, stride: int = 1, padding: int = 0, ins: int = 3) -> nn.Conv2d:
    return nn.Conv2d(ins, 8, kernel, stride, padding)


@pytest.mark.parametrize(
    ("site", "cell", "size", "stride"),
    [
        ("conv2d0", 55, 7, 2),
        ("conv2d2", 27, 19, 4),
        ("mixed3a_1x1", 13, 27, 8),
        ("mixed3a_5x5", 13, 59, 8),
        ("mixed3b", 13, 91, 8),
        ("mixed3b_5x5_pre_relu", 13, 91, 8),
        ("mixed4b", 6, 235, 16),  # larger than the image
    ],
)
def test_fields_of_inception_are_those_of_arithmetic(
    lucids: Subject, site: str, cell: int, size: int, stride: int
) -> None:
    field = receptive_field(lucids, site)
    assert field.cell == (cell, cell)
    assert field.centre == (111, 111)
    assert field.size == (size, size)
    assert field.stride == (stride, stride)
    assert field.pixel(y=float(cell), x=float(cell + 1)) == (111 + stride, 111)


def test_fields_of_a_resnet_are_those_of_arithmetic() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    field = receptive_field(subject_from_module(resnet18(), input_size=224), "layer2")
    assert (field.grid, field.cell) == ((28, 28), (14, 14))
    assert (field.centre, field.size, field.stride) == ((112, 112), (99, 99), (8, 8))


def test_strides_are_found_where_the_grid_does_not_divide_the_image() -> None:
    field = receptive_field(of(conv(5, stride=3)), "0")
    assert field.grid == (10, 10)
    assert (field.size, field.stride) == ((5, 5), (3, 3))
    assert field.pixel(y=0.0, x=0.0) == (2, 2)
    assert field.centre in ((14, 14), (17, 17))


def test_units_that_are_silent_and_vectors_of_sum_0_have_fields() -> None:
    silent = conv(3, padding=1)
    nn.init.constant_(silent.bias, -1000.0)
    assert receptive_field(of(silent, nn.ReLU()), "1").size == (3, 3)
    assert receptive_field(of(conv(3, padding=1), Centre()), "1").size == (3, 3)


def test_cells_that_see_everything_tile_the_image_and_vectors_are_centred_on_it() -> None:
    subject = of(conv(2, stride=2), Everywhere(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), size=8)
    assert receptive_field(subject, "1").pixel(y=0.0, x=3.0) == (6.5, 0.5)
    for site in ("2", "3"):
        field = receptive_field(subject, site)
        assert (field.centre, field.size, field.cell) == ((3.5, 3.5), (8, 8), (0, 0))
    flat = nn.Sequential(nn.Flatten(2))
    declared = subject_from_module(flat, input_size=8, layout={"0": "NLC"})
    tokens = receptive_field(declared, "0")
    assert (tokens.grid, tokens.centre, tokens.stride) == ((3, 1), (3.5, 3.5), (0, 0))


def test_a_network_of_one_size_is_probed_at_that_size() -> None:
    subject = of(OneSize(), conv(9, padding=4), size=8)
    field = receptive_field(subject, "1")
    assert (field.size, field.stride) == ((8, 8), (1, 1))
    assert field.pixel(y=2.0, x=7.0) == (7, 2)


def test_nothing_is_left_behind() -> None:
    subject = of(conv(3), nn.ReLU())
    receptive_field(subject, "1")
    assert not any(m._forward_hooks for m in subject.module.modules())
    assert all(p.grad is None for p in subject.module.parameters())
    with pytest.raises(UnknownSiteError):
        receptive_field(subject, "7")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same_fields(lucids: Subject) -> None:
    expected = receptive_field(lucids, "mixed3b")
    try:
        lucids.module.to("cuda")
        assert receptive_field(lucids, "mixed3b") == expected
    finally:
        lucids.module.to("cpu")


class Centre(nn.Module):
    """Centres every cell's vector, as normalisations do, so that its sum is constant."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW - x_BCHW.mean(dim=1, keepdim=True)


class Everywhere(nn.Module):
    """Adds the mean of the image to every cell."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + x_BCHW.mean(dim=(2, 3), keepdim=True)


class OneSize(nn.Module):
    """Accepts only images of 8 pixels, as a network with position embeddings does."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if x_BCHW.shape[-1] != 8:
            raise ValueError("8 pixels are wanted")
        return x_BCHW
