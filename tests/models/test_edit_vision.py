"""Editing latents of vision networks: maps, branches, patches and class tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tendril
from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.sites.hooks import recording
from tendril.models.sites.tokens import with_tokens
from tendril.models.subjects.load import inceptionv1
from tendril.models.subjects.module import subject_from_module

from ..helpers.edits import D, hand, make_sae, no_hooks_left


@pytest.fixture(scope="module")
def sae() -> SAE:
    return make_sae(D, Sparsity("topk", 6))


class Branches(nn.Module):
    """Two branches that are concatenated; the first is read before the second is computed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Linear(10, 7)

    def forward(self, x: Tensor) -> Tensor:
        left = self.relu(self.left(x))
        maps = torch.cat([left, self.right(x)], dim=1)
        return self.last(maps.mean(dim=(2, 3)))


def test_maps_and_branches_of_a_convolutional_network() -> None:
    """Against a hand computation, at all positions, a patch, and a mask of each image."""
    sae = make_sae(10, Sparsity("topk", 4))
    module = Branches().eval().requires_grad_(False)
    vision = subject_from_module(module, input_size=6, name="branches")
    both = {**vision.sites, "pre": ("left", "right")}
    vision = type(vision)(**{**vars(vision), "sites": both})
    x_BCHW = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    maps_BHWD = torch.cat([module.left(x_BCHW), module.right(x_BCHW)], 1).permute(0, 2, 3, 1)
    mask_BHW = torch.rand(5, 6, 6, generator=torch.Generator().manual_seed(5)) > 0.5
    patch_BHW = torch.zeros(5, 6, 6, dtype=torch.bool)
    patch_BHW[:, 1:3, 4] = True
    edited_BHWD = hand(sae, maps_BHWD, {2: 3.0, 4: 0.0})
    for places, where_BHW in (
        ({}, torch.ones_like(patch_BHW)),
        ({"positions": (slice(1, 3), [4])}, patch_BHW),
        ({"mask": mask_BHW}, mask_BHW),
        ({"mask": mask_BHW[0]}, mask_BHW[:1].expand(5, 6, 6)),
    ):
        made_BHWD = torch.where(where_BHW[..., None], edited_BHWD, maps_BHWD)
        made_BHWD = torch.cat([made_BHWD[..., :4].relu(), made_BHWD[..., 4:]], dim=3)
        wanted = module.last(made_BHWD.mean(dim=(1, 2)))
        with (
            no_hooks_left(module),
            tendril.edit(vision, "pre", sae, set={2: 3.0}, ablate=[4], **places) as model,  # type: ignore[arg-type]
        ):
            torch.testing.assert_close(model(x_BCHW), wanted, atol=1e-5, rtol=1e-4)
            if places.get("mask") is not mask_BHW:
                torch.testing.assert_close(model(x_BCHW[:2]), wanted[:2], atol=1e-5, rtol=1e-4)
    plain = module(x_BCHW)
    with tendril.edit(vision, "pre", sae, add={2: 0.0}, scale={4: 1.0}) as model:
        assert torch.equal(model(x_BCHW), plain)


class Sequence(nn.Module):
    """A little vision transformer: a class token, 16 patches of 4 pixels, one block."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, D, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, D))
        self.block = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, D))
        self.head = nn.Linear(D, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1)
        x = self.block(x)
        return self.head(x.mean(dim=1) + x[:, 0])


@pytest.mark.parametrize("keep", ["patches", "class", "all"])
def test_tokens_of_a_vision_transformer(keep: str, sae: SAE) -> None:
    """Patches are a map, in which rows and columns can be chosen; other tokens stay as they are."""
    module = Sequence().eval().requires_grad_(False)
    vision = with_tokens(subject_from_module(module, input_size=16), keep, ["block"])
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with recording(module, {"block": ("block",)}, all_tokens=True) as forward:
        tokens_BLD = forward(x)["block"]
    edited_BLD = hand(sae, tokens_BLD, {2: 3.0})
    where_L = torch.zeros(17, dtype=torch.bool)
    where_L[{"patches": [1 + 4, 1 + 4 + 2], "class": [0], "all": [0, 7]}[keep]] = True
    places: Any = {"patches": ([1], slice(0, 4, 2)), "class": None, "all": [0, 7]}[keep]
    wanted_BLD = torch.where(where_L[:, None], edited_BLD, tokens_BLD)
    with tendril.edit(vision, "block", sae, set={2: 3.0}, positions=places) as model:
        found = model(x)
    wanted = module.head(wanted_BLD.mean(dim=1) + wanted_BLD[:, 0])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_inception_with_an_edit_of_strength_zero_is_plain() -> None:
    subject = inceptionv1("random:1")
    sae = make_sae(480, Sparsity("topk", 8))
    x = subject.preprocess(torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(3)))
    with torch.inference_mode():
        plain = subject.module(x)
        for site in ("mixed3b", "mixed3b_pre_relu"):
            with tendril.edit(subject, site, sae, add={3: 0.0}, scale={2: 1.0}) as model:
                assert torch.equal(model(x), plain)
            with tendril.edit(subject, site, sae, add={3: torch.tensor([0.0, 9.0])}) as model:
                made = model(x)
            assert torch.equal(made[0], plain[0]) and not torch.equal(made[1], plain[1])
