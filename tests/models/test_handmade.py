"""The handmade subject detects the features listed in PLANTED, and little else."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tendril.data.inputs.procedural import dead_leaves
from tendril.models.sites.hooks import recording
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import Subject
from tendril.models.subjects.synthetic.handmade import PLANTED, handmade_subject
from tendril.study.measures.curve_scores import CurveScores, score_curves
from tendril.study.measures.curve_stimuli import CurveGrid, curve_images, draw_curve

SITE = "mixed3b_5x5"
SIZE, CELL, PIXEL = 112, 6, 55  # cell i of mixed3b sees about pixel 8 i + 7
GRID = CurveGrid(
    orientations=tuple(7.5 * i for i in range(48)), radii=(12.0, 20.0, 34.0, 46.0, 1e5)
)
CURVED = slice(0, 4)  # the last radius is a straight line

UNITS = {kind: [p.unit for p in PLANTED if p.kind == kind] for kind in {p.kind for p in PLANTED}}
ANGLES = {p.unit: p.orientation for p in PLANTED}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return handmade_subject()


def activations(subject: Subject, images_BCHW: Tensor, site: str = SITE) -> Tensor:
    with recording(subject.module, {site: subject.sites[site]}) as forward, torch.no_grad():
        return forward(subject.preprocess(images_BCHW))[site]


def centre(subject: Subject, images_BCHW: Tensor) -> np.ndarray:
    """Responses [B, 96] of the units at the middle cell of the images."""
    return activations(subject, images_BCHW)[:, :, CELL, CELL].numpy()


@pytest.fixture(scope="module")
def responses(subject: Subject) -> np.ndarray:
    """[styles, radii, orientations, units]"""
    batches = curve_images(GRID, SIZE, (PIXEL, PIXEL), batch_size=48)
    rows = np.concatenate([centre(subject, batch) for batch in batches])
    return rows.reshape(*GRID.shape, -1)


@pytest.fixture(scope="module")
def scores(responses: np.ndarray) -> CurveScores:
    return score_curves(
        responses[:, CURVED].transpose(2, 1, 0, 3),
        np.array(GRID.orientations),
        np.array(GRID.radii[CURVED]),
        GRID.styles,
    )


@pytest.fixture(scope="module")
def leaves(subject: Subject) -> Tensor:
    """Activations [B, 96, H, W] on dead leaves images."""
    images = np.stack([dead_leaves(11, index, subject.input_size) for index in range(24)])
    return activations(subject, torch.from_numpy(images).permute(0, 3, 1, 2) / 255)


def grey(ink_HW: np.ndarray) -> Tensor:
    """Black ink in 0..1 on white, as one image."""
    return torch.from_numpy(1 - np.clip(ink_HW, 0, 1)).float().expand(1, 3, -1, -1)


def far(first: np.ndarray, second: np.ndarray, period: float = 360.0) -> np.ndarray:
    return np.abs((first - second + period / 2) % period - period / 2)


def test_the_truth_is_complete():
    assert [p.unit for p in PLANTED] == list(range(len(PLANTED)))
    assert [ANGLES[unit] for unit in UNITS["curve"]] == [22.5 * i for i in range(16)]
    assert {kind: len(units) for kind, units in UNITS.items()} == {
        "curve": 16,
        "line": 16,
        "corner": 8,
        "circle": 4,
    }
    assert all((p.orientation is None) == (p.kind == "circle") for p in PLANTED)


def test_the_subject_is_the_same_each_time_and_says_what_it_is(subject: Subject):
    again = load_subject("handmade")
    assert again.identity == subject.identity and len(subject.identity["weights"]) == 64
    assert again.name == "handmade" and subject.input_size % 16 == 0
    assert not subject.module.training
    assert not any(p.requires_grad for p in subject.module.parameters())
    assert {"conv2d0", SITE, f"{SITE}_pre_relu", "mixed3b"} <= set(subject.sites)
    with pytest.raises(KeyError):
        subject.sites["mixed4a"]


def test_weights_are_exact_in_few_bits(subject: Subject):
    """The digest of the weights must not depend on a machine's rounding of cosines."""
    for parameter in subject.module.parameters():
        steps = parameter.double() * 2**20
        assert torch.equal(steps, steps.round())


def test_curve_detectors_are_tuned_to_the_planted_directions(scores: CurveScores):
    units = UNITS["curve"]
    planted = np.array([ANGLES[unit] for unit in units], dtype=float)
    assert far(scores.orientation[units], planted).max() < 2.0
    assert far(scores.peak[units], planted).max() < 4.0
    assert scores.resultant[units].min() >= 0.85
    assert scores.echo[units].max() <= 0.1
    assert scores.width[units].min() >= 30.0 and scores.width[units].max() <= 70.0
    assert scores.max[units].min() >= scores.max[units].max() / 3


def test_curve_detectors_take_lines_and_edges_of_many_radii_and_nothing_straight(
    responses: np.ndarray,
):
    for unit in UNITS["curve"]:
        at_peak = responses[:, :, GRID.orientations.index(ANGLES[unit]), unit]
        assert at_peak[:, :3].min() >= 0.2 * at_peak.max(), unit
        assert at_peak[:, 3].min() > 0, unit
        assert responses[:, -1, :, unit].max() == 0, unit


def test_no_other_unit_passes_for_a_curve_detector(scores: CurveScores):
    assert scores.resultant[UNITS["line"]].max() < 0.05
    strongest = scores.max[UNITS["curve"]].max()
    assert scores.max[UNITS["corner"]].max() < 0.2 * strongest
    assert scores.max[UNITS["circle"]].max() == 0


def test_lines_fire_along_their_normal(responses: np.ndarray):
    straight = responses[:, -1].mean(axis=0)  # [orientations, units], averaged over styles
    angles = 2j * np.pi * np.array(GRID.orientations) / 180.0
    for unit in UNITS["line"]:
        tuned = np.angle(np.exp(angles) @ straight[:, unit]) / (2 * np.pi) * 180.0
        assert far(tuned, ANGLES[unit], 180.0) < 2.0
        assert straight[:, unit].max() > 10.0


def test_corners_point_where_they_say_and_arms_alone_are_none(subject: Subject):
    y, x = np.mgrid[:SIZE, :SIZE] - float(PIXEL)
    for unit in UNITS["corner"]:
        angle = np.radians(ANGLES[unit])
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        half = np.radians(30.0)
        wedge = grey(0.5 - (u * np.sin(half) + np.abs(v) * np.cos(half)))
        fired = centre(subject, wedge)[0, UNITS["corner"]]
        assert UNITS["corner"][int(fired.argmax())] == unit
        assert fired.max() > 20.0 and np.sort(fired)[-2] < 0.1 * fired.max()
        arm = draw_curve(ANGLES[unit] + 60.0, 1e5, "line", SIZE, (PIXEL, PIXEL))
        assert centre(subject, grey(1 - arm))[0, unit] == 0


def test_circles_fire_at_rings_of_their_size_which_are_no_curves(subject: Subject):
    y, x = np.mgrid[:SIZE, :SIZE] - float(PIXEL)
    rings = torch.cat([grey(1.5 - np.abs(np.hypot(x, y) - r)) for r in (10.0, 16.0, 22.0, 40.0)])
    fired = centre(subject, rings)
    small, large = UNITS["circle"][0], UNITS["circle"][-1]
    assert fired[1, UNITS["circle"]].min() > 100.0
    assert fired[0, small] > 100.0 and fired[0, large] == 0
    assert fired[2, large] == fired[:, large].max()
    assert fired[3, UNITS["circle"]].max() < 0.1 * fired[:3, UNITS["circle"]].max()
    assert fired[:, UNITS["curve"]].max() == 0


def test_planted_units_fire_at_few_places_of_dead_leaves_and_the_rest_is_silent(leaves: Tensor):
    share = (leaves > 0).float().mean(dim=(0, 2, 3)).numpy()
    assert share[UNITS["curve"]].min() > 0.02 and share[UNITS["curve"]].max() < 0.08
    assert share[: len(PLANTED)].min() > 0 and share[: len(PLANTED)].max() < 0.15
    assert share[len(PLANTED) :].max() == 0


def test_every_branch_of_mixed3b_says_something(subject: Subject):
    image = torch.from_numpy(dead_leaves(11, 0, subject.input_size)).permute(2, 0, 1)[None] / 255
    for branch, least in (("1x1", 60), ("3x3", 40), ("5x5", 30), ("pool_reduce", 30)):
        fired = (activations(subject, image, f"mixed3b_{branch}") > 0).any(dim=(0, 2, 3))
        assert int(fired.sum()) >= least, branch


def test_turning_the_image_by_a_quarter_permutes_the_units(subject: Subject):
    reach, count = 47, 6
    side = 2 * reach + 1
    patches = np.stack([dead_leaves(5, index, side) for index in range(count)])
    patches_BCHW = torch.from_numpy(patches).permute(0, 3, 1, 2) / 255
    y, x = np.mgrid[:side, :side] - float(reach)
    patches_BCHW[0, :, np.hypot(x - 8, y) < 18] = 1.0
    patches_BCHW[0, :, np.abs(np.hypot(x - 8, y) - 12) < 1] = 0.0  # a ring, right of the middle
    images = torch.full((2 * count, 3, SIZE, SIZE), 117 / 255)
    middle = slice(PIXEL - reach, PIXEL + reach + 1)
    images[:count, :, middle, middle] = patches_BCHW
    images[count:, :, middle, middle] = torch.rot90(patches_BCHW, -1, (2, 3))  # clockwise
    acts = activations(subject, images)[:, :, CELL - 2 : CELL + 3, CELL - 2 : CELL + 3]
    upright, turned = torch.rot90(acts[:count], -1, (2, 3)), acts[count:]
    for kind, by in (("curve", 4), ("line", 8), ("corner", 2), ("circle", 0)):
        permuted = upright[:, UNITS[kind]].roll(by, dims=1)
        assert permuted.abs().max() > 10
        # response normalisation includes neighbours of the first Gabor on one side only
        torch.testing.assert_close(turned[:, UNITS[kind]], permuted, rtol=0, atol=0.2)
