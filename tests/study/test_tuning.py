"""Responses to curves: their order, the cell they are read at, and the parts of a site."""

import numpy as np
import pytest
import torch
from torch import nn

from tendril.models.sites.receptive import receptive_field
from tendril.models.subjects.module import subject_from_module
from tendril.study.measures.curve_family import CurveFamily
from tendril.study.measures.curve_scores import CurveThresholds, angle_between
from tendril.study.measures.curve_stimuli import CurveGrid, draw_curve
from tendril.study.measures.tuning import by_axis, latent_tuning, site_parts, unit_tuning

from ..helpers.study_subject import ORIENTATIONS, make

CPU = torch.device("cpu")
GRID = CurveGrid(orientations=tuple(10.0 * i for i in range(36)), radii=(6.0, 10.0, 16.0))


@pytest.fixture(scope="module")
def responses() -> np.ndarray:
    subject = make()
    return unit_tuning(subject, "units", receptive_field(subject, "units"), GRID, CPU)


def test_axes_are_orientations_radii_styles_units(responses: np.ndarray):
    assert responses.shape == (36, 3, 3, 10)
    subject = make()
    field = receptive_field(subject, "units")
    for index in (0, 7, 120, 323):
        curve = GRID[index]
        image = draw_curve(curve.orientation, curve.radius, curve.style, 64, field.centre)
        rgb = torch.from_numpy(image)[None, None].repeat(1, 3, 1, 1)
        expected = subject.module(rgb)[0, :, *field.cell].numpy()
        a = GRID.orientations.index(curve.orientation)
        q, e = GRID.radii.index(curve.radius), GRID.styles.index(curve.style)
        np.testing.assert_allclose(responses[a, q, e], expected, atol=1e-6)


def test_templates_are_found_where_they_point(responses: np.ndarray):
    radii, styles = np.array(GRID.radii), GRID.styles
    family = CurveFamily(
        "unit", responses, np.array(GRID.orientations), radii, styles, CurveThresholds()
    )
    assert family.members == list(range(8))
    for unit, orientation in enumerate(ORIENTATIONS):
        assert angle_between(family.orientation(unit), orientation) < 1.0
        assert family.scores.radius[unit] == 10.0
    assert (family.scores.line_edge[:8] < 0).all()


def test_by_axis_undoes_the_order_of_the_grid():
    labels = np.array(
        [[c.orientation, c.radius, len(c.style)] for c in map(GRID.__getitem__, range(len(GRID)))]
    )
    values = by_axis(labels, GRID)
    assert (values[4, :, :, 0] == 40.0).all()
    assert (values[:, 2, :, 1] == 16.0).all()
    assert (values[:, :, 0, 2] == len("line")).all()


def test_latents_are_encoded_stimulus_by_stimulus(responses: np.ndarray):
    latents = latent_tuning(responses, lambda x_ND: x_ND.flip(1)[:, :4], CPU)
    np.testing.assert_array_equal(latents, responses[..., ::-1][..., :4])


class Block(nn.Module):
    """Two branches joined, and a namesake that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.block_a, self.block_b = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 5, 3)
        self.block_c = nn.Conv2d(3, 2, 3)
        self.block = nn.Identity()
        self.block_unused = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.block_c(x)
        return self.block(torch.cat([self.block_a(x), self.block_b(x)], dim=1))


def test_parts_of_a_site_are_known_by_what_they_hold():
    torch.manual_seed(0)
    module = Block()
    del module.block_unused
    subject = subject_from_module(module, input_size=16)
    assert site_parts(subject, "block", CPU) == {"block_a": range(2), "block_b": range(2, 7)}
    assert site_parts(subject, "block_a", CPU) == {}


def test_a_namesake_that_is_never_called_names_no_parts():
    assert site_parts(subject_from_module(Block(), input_size=16), "block", CPU) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(responses: np.ndarray):
    """Within 1e-4 of the strongest response: float32 sums in another order, no TF32."""
    subject = make()
    field = receptive_field(subject, "units")
    on_cuda = unit_tuning(subject, "units", field, GRID, torch.device("cuda"))
    np.testing.assert_allclose(on_cuda, responses, atol=1e-4 * responses.max())
