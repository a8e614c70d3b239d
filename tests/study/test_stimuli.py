"""The synthetic curves: convention of orientation, exact symmetry, antialiasing, order."""

import math

import numpy as np
import pytest
import torch

from tendril.data.errors import ConfigError
from tendril.study.measures.curve_stimuli import (
    STYLES,
    CurveGrid,
    curve_images,
    draw_curve,
    signed_distance,
)

SIZE = 81
MIDDLE = (40.0, 40.0)


def slow_distance(orientation: float, radius: float, x: float, y: float) -> float:
    """Distance from (x, y) to densely sampled points of the curve through the origin."""
    phi = np.radians(np.linspace(-45.0, 45.0, 2001))
    arc = np.stack([radius * np.cos(phi) - radius, radius * np.sin(phi)], axis=1)
    along = np.linspace(0.0, 300.0, 30001)[:, None] / math.sqrt(2.0)
    rays = [arc[-1] + along * [-1.0, 1.0], arc[0] + along * [-1.0, -1.0]]
    points = np.concatenate([arc, *rays])
    angle = math.radians(orientation)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return float(np.hypot(*(points @ turn - [x, y]).T).min())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("orientation", [0.0, 5.0, 22.5, 77.3])
@pytest.mark.parametrize("radius", [0.0, 8.0, 30.0, 500.0])
def test_quarter_turns_permute_the_pixels_exactly(style: str, orientation: float, radius: float):
    upright = draw_curve(orientation, radius, style, SIZE, MIDDLE)
    for quarters in range(1, 4):
        turned = draw_curve(orientation + 90.0 * quarters, radius, style, SIZE, MIDDLE)
        # Clockwise on the screen is the negative sense of rot90, whose rows point down.
        assert np.array_equal(turned, np.rot90(upright, -quarters))
    assert np.array_equal(upright, draw_curve(orientation - 360.0, radius, style, SIZE, MIDDLE))


@pytest.mark.parametrize("orientation", range(0, 360, 15))
@pytest.mark.parametrize("style", ["line", "edge"])
def test_the_ink_lies_opposite_to_the_bulge(orientation: int, style: str):
    y, x = np.mgrid[:SIZE, :SIZE] - 40.0
    within = np.hypot(x, y) <= 40.0
    ink = np.where(within, 1.0 - draw_curve(orientation, 12.0, style, SIZE, MIDDLE), 0.0)
    centre_of_mass = complex((ink * x).sum(), (ink * y).sum()) / ink.sum()
    towards = np.exp(1j * np.radians(orientation + 180.0))
    assert abs(np.degrees(np.angle(centre_of_mass / towards))) < 1.0
    assert abs(centre_of_mass) > 5.0


@pytest.mark.parametrize("radius", [0.0, 10.0, 60.0])
def test_the_distance_is_that_to_the_curve(radius: float):
    distance = signed_distance(33.0, radius, SIZE, (30.0, 45.0))
    rng = np.random.default_rng(0)
    for x, y in rng.integers(0, SIZE, (40, 2)):
        expected = slow_distance(33.0, radius, x - 30.0, y - 45.0)
        assert abs(distance[y, x]) == pytest.approx(expected, abs=0.02)
    bulge = round(45 + 20 * math.sin(math.radians(33))), round(30 + 20 * math.cos(math.radians(33)))
    assert distance[bulge] > 0


def test_the_middle_of_the_arc_lies_on_the_centre():
    for orientation in (0.0, 41.0, 200.0):
        assert signed_distance(orientation, 20.0, SIZE, (17.0, 50.0))[50, 17] == pytest.approx(0.0)
        image = draw_curve(orientation, 20.0, "line", SIZE, (17.0, 50.0))
        assert image[50, 17] == 0.0
        edge = draw_curve(orientation, 20.0, "edge", SIZE, (17.0, 50.0))
        assert edge[50, 17] == pytest.approx(0.5)


@pytest.mark.parametrize("orientation", [0.0, 10.0, 30.0, 40.0])
def test_antialiasing_keeps_the_ink_of_what_is_drawn(orientation: float):
    """Almost straight strokes and edges cover the area that geometry says, not whole pixels."""
    straight = 1e7
    y, x = np.mgrid[:SIZE, :SIZE] - 40.0
    window = np.maximum(abs(x), abs(y)) <= 30.0
    for width in (0.5, 1.0, 2.0, 3.3):
        line = draw_curve(orientation, straight, "line", SIZE, MIDDLE, line_width=width)
        length = 61.0 / math.cos(math.radians(orientation))
        assert (1.0 - line)[window].sum() == pytest.approx(width * length, rel=0.03)
    edge = draw_curve(orientation, straight, "edge", SIZE, MIDDLE)
    assert (1.0 - edge)[window].sum() == pytest.approx(61.0**2 / 2.0, rel=0.005)
    greys = ((edge > 0.0) & (edge < 1.0)).sum()
    assert greys >= 60 and edge.min() == 0.0 and edge.max() == 1.0


def test_the_reverse_of_an_edge_swaps_dark_and_light():
    edge = draw_curve(70.0, 12.0, "edge", SIZE, MIDDLE)
    reverse = draw_curve(70.0, 12.0, "reverse", SIZE, MIDDLE)
    assert np.allclose(reverse, 1.0 - edge)


def test_a_shift_below_a_pixel_shows():
    here = draw_curve(0.0, 30.0, "edge", SIZE, (40.0, 40.0))
    there = draw_curve(0.0, 30.0, "edge", SIZE, (40.25, 40.0))
    assert (here - there)[40].sum() == pytest.approx(0.25, abs=1e-5)


def test_images_come_in_the_order_of_the_grid():
    grid = CurveGrid(orientations=(0.0, 90.0, 200.0), radii=(5.0, 20.0))
    batches = list(curve_images(grid, 33, (16, 16), batch_size=5))
    assert [len(batch) for batch in batches] == [5, 5, 5, 3]
    images = torch.cat(batches)
    assert images.dtype == torch.float32 and images.shape == (18, 3, 33, 33)
    by_axis = images.reshape(*grid.shape, 3, 33, 33)
    expected = draw_curve(200.0, 5.0, "edge", 33, (16, 16))
    for channel in by_axis[1, 0, 2]:
        assert np.array_equal(channel.numpy(), expected)
    assert grid[8].style == "edge" and grid[8].radius == 5.0 and grid[8].orientation == 200.0


def test_the_default_grid_goes_round_evenly_from_tight_to_almost_straight():
    grid = CurveGrid()
    assert grid.shape == (3, 6, 72) and len(grid) == 1296
    assert np.allclose(np.diff(grid.orientations), 5.0)
    assert np.allclose(np.diff(np.log(grid.radii), n=2), 0.0)


def test_what_cannot_be_drawn_is_told():
    with pytest.raises(ConfigError, match="line, edge"):
        draw_curve(0.0, 5.0, "dots", 9, (4, 4))
    with pytest.raises(ConfigError, match="radius"):
        draw_curve(0.0, -1.0, "line", 9, (4, 4))
