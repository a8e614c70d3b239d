"""A receptive patch gives the same vectors as the whole image, on the smallest canvas."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tendril.data import _torchvision  # noqa: F401  before torchvision
from tendril.data.errors import ConfigError, UnknownSiteError
from tendril.models.sites.hooks import as_grid, recording
from tendril.models.sites.window import ReceptivePatch, find_receptive_patch, mean_colour
from tendril.models.subjects import inception
from tendril.models.subjects.inception import InceptionV1, unpadded
from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject, site_modules

STAGES = ("conv2d0", "conv2d1", "conv2d2", "mixed3a", "mixed3b", "mixed4a")


@pytest.fixture(scope="module")
def lucids() -> Subject:
    """InceptionV1 up to mixed4a, with random weights."""
    torch.manual_seed(0)
    network = InceptionV1(until="mixed4a").eval().requires_grad_(False)
    sites = inception.inception_sites("mixed4a")
    return Subject(
        "inceptionv1", network, inception.preprocess, 224, sites, unpadded=unpadded(network)
    )


def patches(patch: ReceptivePatch) -> torch.Tensor:
    shape = (2, 3, patch.size, patch.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def on_whole_images(
    subject: Subject, patch: ReceptivePatch, cell: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """The same vectors, from whole images of the mean colour with the patch around a cell."""
    size = subject.input_size
    images = torch.tensor(patch.colour).view(1, 3, 1, 1).repeat(2, 1, size, size)
    x, y = patch.centre(*cell)
    left, top = (round(at - (patch.size - 1) / 2) for at in (x, y))
    images[:, :, top : top + patch.size, left : left + patch.size] = patches(patch)
    sites = site_modules(subject, list(patch.sites))
    with recording(subject.module, sites) as forward, torch.inference_mode():
        acts = forward(subject.preprocess(images))
    found = {}
    for site, field in patch.fields.items():
        column = round(field.cell[1] + (x - field.centre[0]) / (field.stride[0] or 1))
        row = round(field.cell[0] + (y - field.centre[1]) / (field.stride[1] or 1))
        found[site] = as_grid(acts[site])[:, row, column]
    return found


def agrees(subject: Subject, patch: ReceptivePatch, cell: tuple[int, int]) -> None:
    with patch.reading(2) as read, torch.inference_mode():
        got = read(patches(patch))
    for site, wanted in on_whole_images(subject, patch, cell).items():
        assert float(wanted.abs().max()) > 0
        assert float((got[site] - wanted).abs().max() / wanted.abs().max()) <= 1e-5, site


@pytest.mark.slow  # 48 receptive fields to probe; the next test has one of each kind
@pytest.mark.parametrize("stage", STAGES)
def test_every_site_up_to_mixed4a_comes_out_of_a_patch(lucids: Subject, stage: str) -> None:
    sites = [s for s in lucids.sites if s.startswith(stage)]
    patch = find_receptive_patch(lucids, sites)
    assert patch.module is lucids.unpadded
    assert patch.canvas == patch.size
    assert patch.size == max(max(field.size) for field in patch.fields.values())
    agrees(lucids, patch, patch.inside(224)[-1])


@pytest.mark.parametrize(
    "sites", [("mixed3a_3x3", "conv2d2_pre_relu"), ("mixed4a", "mixed3b_5x5", "mixed3b_pre_relu")]
)
def test_sites_of_several_stages_or_narrow_branches(
    lucids: Subject, sites: tuple[str, ...]
) -> None:
    patch = find_receptive_patch(lucids, sites)
    assert patch.module is lucids.unpadded
    assert patch.canvas < 224
    agrees(lucids, patch, patch.inside(224)[0])


def test_a_network_with_padding_alone_gets_a_crop_in_step_with_its_strides(lucids: Subject) -> None:
    padded = replace(lucids, unpadded=None)
    patch = find_receptive_patch(padded, ["mixed3b_5x5"])
    assert (patch.module, patch.size, patch.canvas) == (lucids.module, 91, 96)
    agrees(padded, patch, patch.inside(224)[3])


def test_a_resnet_gets_a_crop() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    subject = subject_from_module(resnet18(), input_size=224)
    patch = find_receptive_patch(subject, ["layer1"])
    assert patch.size <= patch.canvas < 224
    agrees(subject, patch, patch.inside(224)[0])


class OneSize(nn.Module):
    """A convolution plus a parameter per pixel, so that only 20 x 20 images fit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.places = nn.Parameter(torch.rand(4, 20, 20))
        self.seen = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.seen(self.conv(x) + self.places)
        return mixed


def test_a_network_of_one_size_gets_whole_images() -> None:
    torch.manual_seed(0)
    subject = subject_from_module(OneSize(), input_size=20)
    patch = find_receptive_patch(subject, ["seen"])
    assert (patch.size, patch.canvas) == (3, 20)
    agrees(subject, patch, patch.fields["seen"].cell)


def test_anchors_are_cells_whose_patch_lies_in_the_image(lucids: Subject) -> None:
    patch = find_receptive_patch(lucids, ["mixed3b"])
    cells = patch.inside(224)
    assert cells[0] == (5, 5)  # pixel 47, and 45 on each side
    assert cells[-1] == (21, 21)
    assert len(cells) == 17**2


def test_sites_whose_cells_have_other_centres_are_refused(lucids: Subject) -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2))
    subject = subject_from_module(pooled, input_size=32)
    with pytest.raises(ConfigError, match="common centre; no cell of 0 is centred"):
        find_receptive_patch(subject, ["1", "0"])
    with pytest.raises(UnknownSiteError, match="mixed3b"):
        find_receptive_patch(lucids, ["mixed3bb"])


def test_the_mean_colour_is_what_preprocessing_turns_to_zero(lucids: Subject) -> None:
    assert mean_colour(lucids) == pytest.approx((117 / 255,) * 3, abs=1e-5)
    plain = subject_from_module(nn.Sequential(nn.Conv2d(3, 4, 3)), input_size=32)
    assert mean_colour(plain) == (0.0, 0.0, 0.0)
