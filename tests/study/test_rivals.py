"""Rival shapes: drawn right, and told from curves by detectors made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tendril.models.dictionaries.sae import SAE
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.subjects.module import subject_from_module
from tendril.study.measures.curve_family import latent_family, unit_family
from tendril.study.measures.curve_search import CurveSearch
from tendril.study.measures.curve_stimuli import CurveGrid, draw_curve
from tendril.study.measures.rival_stimuli import RIVALS, Rival, RivalResponses, rivals_of

from ..helpers.study_example import family

SIZE = 64
MIDDLE = (31.5, 31.5)
RADII = (12.0, 20.0, 32.0)
DETECTED = [
    *(("curve", a, style, 20.0) for a in (0.0, 100.0, 215.0) for style in ("line", "edge")),
    *(("corner", a, style, 0.0) for a in (30.0, 170.0) for style in ("line", "edge")),
    *(("line end", a, "line", 0.0) for a in (20.0, 90.0, 260.0)),
    *(("edge", a, "edge", 0.0) for a in (45.0, 300.0)),
    *(("line", a, "line", 0.0) for a in (0.0, 60.0)),
    *(("circle", 0.0, style, 20.0) for style in ("line", "edge")),
    ("grating", 40.0, "0", 8.0),
    ("grating", 120.0, "90", 4.0),
]
"""Kind, direction, style and size of the shape that each hand-made detector is a template of."""


def drawn(kind: str, degrees: float, style: str, size: float) -> np.ndarray:
    """A shape in the middle of the image."""
    if kind == "curve":
        return draw_curve(degrees, size, style, SIZE, MIDDLE)
    return Rival(kind, degrees, style, size).draw(SIZE, MIDDLE, 2.0)


class Templates(nn.Module):
    """A layer of one cell whose units are matched filters within a disc about the middle.

    The response of a unit is the cosine of image and template, both with mean zero within the disc,
    so by the inequality of Cauchy and Schwarz no image excites it more than its own shape.
    """

    def __init__(self) -> None:
        super().__init__()
        y, x = np.mgrid[:SIZE, :SIZE] - MIDDLE[0]
        disc = torch.from_numpy((np.hypot(x, y) <= 28).astype(np.float32))
        self.register_buffer("disc", disc)
        shapes = torch.stack([torch.from_numpy(drawn(*one)) for one in DETECTED])
        self.register_buffer("templates", self.normalised(shapes))
        self.units = nn.Identity()

    def normalised(self, x_BHW: Tensor) -> Tensor:
        """Images with mean zero and norm one within the disc."""
        mean_B = (x_BHW * self.disc).sum(dim=(1, 2)) / self.disc.sum()
        x_BHW = (x_BHW - mean_B[:, None, None]) * self.disc
        return x_BHW / x_BHW.norm(dim=(1, 2), keepdim=True).clamp_min(1e-6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHW = self.normalised(x_BCHW.mean(dim=1))
        response_BD = torch.einsum("bhw,dhw->bd", x_BHW, self.templates)
        return self.units(torch.relu(response_BD)[:, :, None, None])


@pytest.fixture(scope="module")
def templates():
    subject = subject_from_module(Templates(), name="templates", input_size=SIZE)
    search = CurveSearch(orientation_step=5.0, radii=RADII)
    return unit_family(subject, "units", search, torch.device("cpu"))


def test_every_hand_made_detector_is_told_by_its_shape(templates):
    for unit, (kind, *_) in enumerate(DETECTED):
        ratio = templates.scores.rival[unit]
        if kind == "curve":
            assert ratio < 1, DETECTED[unit]
        else:
            assert ratio > 1 and templates.rival(unit) == kind, DETECTED[unit]
    curves = {unit for unit, (kind, *_) in enumerate(DETECTED) if kind == "curve"}
    passing = templates.thresholds.passes(templates.scores)
    assert set(np.flatnonzero(passing["rival"]).tolist()) == curves


def test_latents_are_told_as_units_are(templates):
    dictionary = SAE(len(DETECTED), len(DETECTED) + 1, Sparsity("relu"), pre_bias=False)
    with torch.no_grad():
        dictionary.W_enc.copy_(
            torch.cat([2 * torch.eye(len(DETECTED)), torch.eye(len(DETECTED))[:, :1]], dim=1)
        )
        dictionary.b_enc.zero_()
    latents = latent_family(templates, dictionary, torch.device("cpu"))
    count = len(DETECTED)
    np.testing.assert_allclose(latents.scores.rival[:count], templates.scores.rival, rtol=1e-6)
    assert [latents.rival(i) for i in range(count)] == [templates.rival(i) for i in range(count)]


def test_a_unit_that_prefers_corners_is_a_near_miss_with_the_reason():
    made = family("unit", (0.0, 90.0, 180.0), others=0)
    peak = made.responses.max(axis=(0, 1, 2))
    shapes = tuple(Rival(kind, 0.0) for kind in RIVALS)
    values_VD = np.zeros((len(shapes), len(peak)), np.float32)
    values_VD[RIVALS.index("corner")] = peak * (0.5, 1.05, 1.5)
    judged = replace(made, rivals=RivalResponses(shapes, values_VD))
    assert judged.members == [0]
    assert judged.near_misses() == [(1, "rival (corner) 1.05 > 1")]
    assert judged.listing()[0]["rival"] == "corner"
    assert judged.listing()[0]["rival_ratio"] == pytest.approx(0.5)


def test_the_rivals_of_a_grid_are_every_kind_once_in_each_direction():
    grid = CurveGrid(orientations=tuple(10.0 * i for i in range(36)), radii=(8.0, 128.0))
    shapes = rivals_of(grid)
    assert len(set(shapes)) == len(shapes)
    count = {kind: sum(shape.kind == kind for shape in shapes) for kind in RIVALS}
    assert count == {
        "corner": 3 * 36,
        "edge": 36,
        "line": 18,
        "line end": 36,
        "circle": 3 * 2,
        "grating": 3 * 2 * 18,
    }


@pytest.mark.parametrize("kind", RIVALS)
def test_a_quarter_turn_permutes_the_pixels(kind):
    style = "0" if kind == "grating" else "edge" if kind == "circle" else "line"
    upright, turned = (
        Rival(kind, angle, style, 12.0).draw(SIZE, MIDDLE, 2.0) for angle in (20.0, 110.0)
    )
    np.testing.assert_array_equal(np.rot90(upright, k=-1), turned)


def test_a_straight_edge_is_the_limit_of_curves_and_a_corner_their_beginning():
    wide = draw_curve(30.0, 1e5, "edge", SIZE, MIDDLE)
    np.testing.assert_allclose(Rival("edge", 30.0, "edge").draw(SIZE, MIDDLE, 2.0), wide, atol=0.02)
    sharp = draw_curve(30.0, 0.0, "line", SIZE, MIDDLE)
    np.testing.assert_array_equal(Rival("corner", 30.0).draw(SIZE, MIDDLE, 2.0), sharp)
