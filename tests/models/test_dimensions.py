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
    "vector": (1, 1),
    "strided": (MAP, MAP),
}
REFUSED = {
    "windows": r"\[4, 16, 6\] for one image and \[8, 16, 6\] for two.*several windows",
    "sequence_first": r"\[64, 1, 6\] for one.*dimension 1 holds the images.*'LNC'",
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


def by_hand(subject: Subject, site: str, rgb_BCHW: Tensor) -> Tensor:
    """The activations [B, H, W, D] of the site, one image at a time, with a hook of our own."""
    rows = []
    for rgb_CHW in rgb_BCHW:
        seen: list[Tensor] = []
        handle = subject.module.get_submodule(site).register_forward_hook(
            lambda _m, _i, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        with torch.no_grad():
            subject.module(rgb_CHW[None])
        handle.remove()
        (acts,) = seen
        kind = site.removeprefix("kinds.")
        if kind in ("channels_first", "pair", "strided"):
            acts = acts[0].permute(1, 2, 0)
        elif kind == "channels_last":
            acts = acts[0]
        elif kind == "sequence_first":
            acts = acts[:, 0, None]
        else:
            acts = acts[0].reshape(-1, 1, CHANNELS)
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


def test_a_declared_layout_is_read_and_is_part_of_the_identity() -> None:
    subject, site = layouts.declared(), "kinds.sequence_first"
    shape = describe_sites(subject, [site])[site]
    assert (shape.width, shape.grid) == (CHANNELS, (MAP * MAP, 1))
    rgb_BCHW = torch.rand(3, 3, SIZE, SIZE)
    torch.testing.assert_close(read(subject, site, rgb_BCHW), by_hand(subject, site, rgb_BCHW))
    assert subject.identity["layout"] == {site: "LNC"}
    assert "layout" not in layouts.network().identity


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
    assert layout_of("0", plain[0], plain, cube, True) == "NCHW"
    assert layout_of("conv", nn.Conv2d(8, 8, 1), normed, cube, True) == "NCHW"
    assert layout_of("norm", normed[1], normed, cube, True) == "NHWC"
    with pytest.raises(SubjectError, match="cannot be told"):
        layout_of("0", normed[0], normed, cube, True)
    with pytest.raises(SubjectError, match="cannot be told"):
        layout_of("0", normed[0], normed, (2, 8, 6, 8), False)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "HWNC", "LNC", "NCL", "CN"])
def test_restored_is_the_inverse_of_standard(layout: str) -> None:
    acts = torch.rand(*range(2, 2 + len(layout)))
    assert torch.equal(restored(standard(acts, layout), layout), acts)
