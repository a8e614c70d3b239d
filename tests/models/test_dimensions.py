"""The batch and the channels of a site are found, declared or refused."""

import pytest
import torch
from torch import Tensor, nn

from tendril.data.errors import SubjectError
from tendril.models.sites.dimensions import layout_of, restored, standard
from tendril.models.sites.hooks import as_grid, describe_sites, recording
from tendril.models.sites.receptive import receptive_field
from tendril.models.sites.splice import splicing, to_parts, to_vectors
from tendril.models.subjects.module import subject_from_module
from tendril.models.subjects.subject import Subject, site_modules

from ..helpers import layouts
from ..helpers.layouts import CHANNELS, MAP, SIZE

SITES = {  # site -> grid
    "channels_first": (MAP, MAP),
    "channels_last": (MAP, MAP),
    "tokens": (MAP * MAP, 1),
    "pair": (MAP, MAP),
    "channels_then_cells": (MAP * MAP, 1),
    "class_token": (MAP * MAP + 1, 1),
    "nested": (MAP, MAP),
    "vector": (1, 1),
    "strided": (MAP, MAP),
}
REFUSED = {
    "windows": r"\[4, 16, 6\] for one image and \[8, 16, 6\] for two.*several windows",
    "sequence_first": r"\[64, 1, 6\] for one.*dimension 1 holds the images.*'LNC'",
    "cells_then_half": r"cannot be told from their shape \[2, 64, 12\]. Declare it.*'NLC'",
    "alike": r"cannot be told from their shape \[2, 6, 6\]",
    "five": r"must have shape \[B, C, H, W\]",
    "flat": r"\[64, 6\] for one image and \[128, 6\] for two.*positions per image",
    "named": "must be a tensor; got a dict",
    "scrambled": "must not depend on the other images of its batch",
    "cut": "must not depend on the other images of its batch",
    "mixed": "must not depend on the other images of its batch",
    "no_batch": "no dimension holds the images",
    "scalar": r"must have shape \[B, C, H, W\]",
}


def read(subject: Subject, site: str, rgb_BCHW: Tensor) -> Tensor:
    with torch.no_grad(), recording(subject.module, site_modules(subject, [site])) as forward:
        return as_grid(forward(subject.preprocess(rgb_BCHW))[site])


def first(output: object) -> Tensor:
    while isinstance(output, tuple | list):
        output = output[0]
    assert isinstance(output, Tensor)
    return output


def by_hand(subject: Subject, site: str, rgb_BCHW: Tensor) -> Tensor:
    """The activations [B, H, W, D] of the site, one image at a time, with a hook of our own."""
    rows = []
    for rgb_CHW in rgb_BCHW:
        seen: list[Tensor] = []
        handle = subject.module.get_submodule(site).register_forward_hook(
            lambda _m, _i, out, seen=seen: seen.append(first(out))
        )
        with torch.no_grad():
            subject.module(rgb_CHW[None])
        handle.remove()
        (acts,) = seen
        kind = site.removeprefix("kinds.")
        if kind in ("channels_first", "pair", "nested", "strided"):
            acts = acts[0].permute(1, 2, 0)
        elif kind == "channels_last":
            acts = acts[0]
        elif kind == "channels_then_cells":
            acts = acts[0].T[:, None]
        elif kind == "sequence_first":
            acts = acts[:, 0, None]
        else:
            acts = acts[0].reshape(-1, 1, acts.shape[-1])
        rows.append(acts)
    return torch.stack(rows)


@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_site_is_what_a_hook_by_hand_reads(kind: str, batch: int) -> None:
    subject, site = layouts.network(), f"kinds.{kind}"
    rgb_BCHW = torch.rand(batch, 3, SIZE, SIZE)
    shape = describe_sites(subject, [site])[site]
    assert (shape.width, shape.grid) == (CHANNELS, SITES[kind])
    torch.testing.assert_close(read(subject, site, rgb_BCHW), by_hand(subject, site, rgb_BCHW))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_site_without_one_batch_dimension_is_refused(kind: str) -> None:
    with pytest.raises(SubjectError, match=REFUSED[kind]):
        describe_sites(layouts.network(), [f"kinds.{kind}"])


@pytest.mark.parametrize("kind", layouts.DECLARED)
def test_a_declared_layout_is_read_and_is_part_of_the_identity(kind: str) -> None:
    subject, site = layouts.declared(), f"kinds.{kind}"
    shape = describe_sites(subject, [site])[site]
    rgb_BCHW = torch.rand(3, 3, SIZE, SIZE)
    expected = by_hand(subject, site, rgb_BCHW)
    assert (shape.width, shape.grid) == (expected.shape[-1], expected.shape[1:3])
    torch.testing.assert_close(read(subject, site, rgb_BCHW), expected)
    assert subject.identity["layout"] == {f"kinds.{k}": v for k, v in layouts.DECLARED.items()}
    assert "layout" not in layouts.network().identity


class Tokens(nn.Module):
    """A transformer of images as many are written, with modules that have no parameters."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.Flatten(2))
        self.drop = nn.Dropout()
        self.block = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True)
        self.up, self.act, self.down = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.stem(x).transpose(1, 2))
        x = self.block(torch.cat([x.mean(1, keepdim=True), x], 1))
        out: Tensor = self.down(self.act(self.up(x)))
        return out


@pytest.mark.parametrize(("width", "hidden"), [(24, 48), (16, 64), (36, 100), (64, 256), (65, 64)])
def test_a_transformer_of_images_is_read_or_refused(width: int, hidden: int) -> None:
    if width == 65:
        width, hidden = 66, 64  # as many cells as hidden units
    subject = subject_from_module(Tokens(width, hidden), input_size=32)
    x = torch.rand(2, 3, 32, 32)
    told = {"stem": (width, 64), "drop": (width, 64), "block": (width, 65), "up": (hidden, 65)}
    for site, (channels, cells) in (told | {"act": (hidden, 65), "down": (width, 65)}).items():
        try:
            shape = describe_sites(subject, [site])[site]
        except SubjectError as error:
            assert "cannot be told" in str(error)
            assert width == 64  # as many channels as cells
            assert site in ("stem", "drop")
            continue
        assert (shape.width, shape.grid) == (channels, (cells, 1))
        assert read(subject, site, x).shape == (2, cells, 1, channels)


class Sound(nn.Module):
    """Layers of one dimension behind a map of as many rows as a layer is wide."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = conv, nn.ReLU()
        self.both = nn.Sequential(nn.Conv1d(9, 9, 1), nn.ReLU())
        self.last = nn.Conv1d(9, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.both(self.act(self.conv(x.mean(1)[:, :9])))
        out: Tensor = self.last(x).transpose(1, 2)
        return out


SEQUENCES = (
    nn.Conv1d(9, 9, 3),
    nn.ConvTranspose1d(9, 9, 3),
    nn.BatchNorm1d(9),
    nn.InstanceNorm1d(9),
    nn.GroupNorm(3, 9),
    nn.MaxPool1d(2),
    nn.AvgPool1d(2),
    nn.AdaptiveAvgPool1d(7),
    nn.AdaptiveMaxPool1d(7),
    nn.Upsample(scale_factor=2.0),
)


@pytest.mark.parametrize("conv", SEQUENCES, ids=lambda m: type(m).__name__)
def test_layers_of_one_dimension_are_channels_first(conv: nn.Module) -> None:
    subject = subject_from_module(Sound(conv), input_size=16)
    shapes = describe_sites(subject, ["conv", "both"])
    assert (shapes["conv"].width, shapes["both"].width) == (9, 9)
    assert shapes["conv"].grid == shapes["both"].grid


def test_a_sequence_as_long_as_another_layer_is_wide_is_refused_or_right() -> None:
    """Channels joined from two layers, and as many cells as a layer has channels."""

    class Joined(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([a, b], 1).flatten(2)

    class Network(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 64, 4, stride=4)
            self.other = nn.Conv2d(3, width, 4, stride=4)
            self.joined = Joined()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.joined(self.conv(x), self.other(x))
            return out

    for width in (64, 192, 60, 2):
        subject = subject_from_module(Network(width), input_size=32)
        with pytest.raises(SubjectError, match="cannot be told"):
            describe_sites(subject, ["joined"])


def test_a_wrong_declaration_is_refused() -> None:
    with pytest.raises(SubjectError, match="must have each letter of NCHW"):
        subject_from_module(layouts.Layouts(), layout={"stem": "NHCC"})
    with pytest.raises(SubjectError, match="has no module 'stam'"):
        subject_from_module(layouts.Layouts(), layout={"stam": "NHWC"})
    subject = subject_from_module(layouts.Layouts(), input_size=SIZE, layout={"stem": "NLC"})
    with pytest.raises(SubjectError, match=r"declared as NLC, but its output has shape \[2, 6"):
        describe_sites(subject, ["stem"])


@pytest.fixture(scope="module")
def swin() -> Subject:
    from tendril.data import _torchvision  # noqa: F401

    from torchvision.models import SwinTransformer  # isort: skip

    torch.manual_seed(0)
    network = SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=10)
    return subject_from_module(network, input_size=64, name="swin")


@pytest.mark.parametrize(
    ("site", "width", "grid"),
    [
        ("features.0.0", 24, (16, 16)),
        ("features.0", 24, (16, 16)),
        ("features.1", 24, (16, 16)),
        ("features.1.0.norm1", 24, (16, 16)),
        ("features.1.1.mlp.0", 96, (16, 16)),
        ("features.1.1.mlp.1", 96, (16, 16)),
        ("features.3", 48, (8, 8)),
        ("norm", 48, (8, 8)),
        ("permute", 48, (8, 8)),
        ("head", 10, (1, 1)),
    ],
)
def test_swin_is_channels_last(swin: Subject, site: str, width: int, grid: tuple[int, int]) -> None:
    shape = describe_sites(swin, [site])[site]
    assert (shape.width, shape.grid) == (width, grid)


def test_convnext_is_channels_first_outside_its_blocks() -> None:
    from tendril.data import _torchvision  # noqa: F401

    from torchvision.models import convnext_tiny  # isort: skip

    torch.manual_seed(0)
    subject = subject_from_module(convnext_tiny(), input_size=64)
    sites = ["features.1", "features.1.0.block.2", "features.1.0.block.4", "features.2.0"]
    shapes = describe_sites(subject, sites)
    assert [shapes[s].width for s in sites] == [96, 96, 384, 96]
    assert [shapes[s].grid for s in sites] == [(16, 16)] * 4


def test_fields_and_replacements_of_a_channels_last_site(swin: Subject) -> None:
    site, x = "features.0", torch.rand(2, 3, 64, 64)
    field = receptive_field(swin, site)
    assert (field.grid, field.size, field.stride) == ((16, 16), (4, 4), (4.0, 4.0))
    with torch.no_grad(), splicing(swin.module, (site,)) as splice:
        parts = splice.read(x)
        clean = splice.run(x, {})
        again = splice.run(x, to_parts(to_vectors(parts), parts))
        zeroed = splice.run(x, {site: torch.zeros_like(parts[site])})
    assert torch.equal(clean, again)
    assert not torch.allclose(clean, zeroed)


def test_a_map_whose_channels_cannot_be_told_is_refused() -> None:
    plain, normed = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), nn.LayerNorm(8))
    cube = (2, 8, 8, 8)
    assert layout_of("0", plain[0], plain, cube, (32, 32)) == "NCHW"
    assert layout_of("conv", nn.Conv2d(8, 8, 1), normed, cube, (32, 32)) == "NCHW"
    assert layout_of("norm", normed[1], normed, cube, (32, 32)) == "NHWC"
    with pytest.raises(SubjectError, match="cannot be told"):
        layout_of("0", normed[0], normed, cube, (32, 32))
    with pytest.raises(SubjectError, match="cannot be told"):
        layout_of("0", normed[0], normed, (2, 8, 6, 8))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "HWNC", "LNC", "NCL", "CN"])
def test_restored_is_the_inverse_of_standard(layout: str) -> None:
    acts = torch.rand(*range(2, 2 + len(layout)))
    assert torch.equal(restored(standard(acts, layout), layout), acts)
