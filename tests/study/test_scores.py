"""The curve scores: on tuning curves whose answer is known, and on Distill's published ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tendril.study.measures.curve_scores import (
    CurveThresholds,
    angle_between,
    coverage,
    envelope,
    half_width,
    minima,
    radial_tuning,
    score_curves,
)

ANGLES = np.arange(72) * 5.0
RADII = np.array([8.0, 16.0, 32.0, 64.0])
STYLES = ("line", "edge")


def bump(orientation: float, concentration: float = 8.0) -> np.ndarray:
    """A von Mises tuning curve of height 1."""
    return np.exp(concentration * (np.cos(np.deg2rad(ANGLES - orientation)) - 1))


def joint(radial_A, by_radius=(1, 1, 1, 1), line=1.0, edge=1.0) -> np.ndarray:
    """Responses [A, Q, E, 1] that factorise over orientation, radius and style."""
    return np.einsum("a,q,e->aqe", radial_A, by_radius, [line, edge])[..., None]


@given(orientation=st.floats(0, 359.99), concentration=st.floats(2, 40))
def test_a_bump_scores_as_what_it_is(orientation: float, concentration: float):
    scores = score_curves(joint(bump(orientation, concentration)), ANGLES, RADII, STYLES)
    angles = np.deg2rad(np.arange(7200) * 0.05)
    fine = np.exp(concentration * (np.cos(angles) - 1))
    width = 2 * np.rad2deg(np.arccos(1 - np.log(2) / concentration))
    assert angle_between(scores.orientation[0], orientation) < 1e-3
    assert angle_between(scores.peak[0], orientation) < 0.3
    assert scores.resultant[0] == pytest.approx(
        (fine * np.cos(angles)).sum() / fine.sum(), abs=1e-6
    )
    assert scores.width[0] == pytest.approx(width, abs=2.0)


def test_an_echo_is_seen_and_told_from_a_wide_peak():
    one_sided, both = bump(40, 20), bump(40, 20) + 0.3 * bump(200, 20)
    scores = score_curves(
        np.concatenate([joint(one_sided), joint(both)], axis=3), ANGLES, RADII, STYLES
    )
    assert scores.echo[0] < 1e-3
    assert scores.echo[1] == pytest.approx(0.3, abs=0.01)
    assert scores.width[1] == pytest.approx(scores.width[0], abs=0.1)
    assert CurveThresholds().curves(scores) == [0]


def test_line_edge_and_radius():
    responses = joint(bump(90), by_radius=(0.1, 0.6, 1.0, 0.4), line=1.0, edge=3.0)
    scores = score_curves(responses, ANGLES, RADII, STYLES)
    assert scores.line_edge[0] == pytest.approx(0.5)
    assert scores.tolerance[0] == 0.5
    assert scores.radius[0] == 32.0
    assert scores.max[0] == pytest.approx(2.1 / 4 * 2)
    assert scores.row(0)["radius"] == 32.0


def test_only_positive_responses_count():
    assert radial_tuning(joint(-bump(10))).max() == 0
    silent = score_curves(joint(-bump(10)), ANGLES, RADII, STYLES)
    assert silent.row(0) | {"orientation": 0, "peak": 0, "radius": 0} == {
        **dict.fromkeys(
            ("orientation", "peak", "resultant", "max", "tolerance", "line_edge", "rival"), 0.0
        ),
        "width": 360.0,
        "echo": 1.0,
        "radius": 0,
    }
    assert CurveThresholds(resultant=0.0, echo=1.0, strength=0.0).curves(silent) == []


def test_flat_tuning_is_no_curve():
    flat = score_curves(joint(np.ones(72)), ANGLES, RADII, STYLES)
    assert flat.resultant[0] < 1e-9
    assert flat.width[0] == 360
    assert flat.echo[0] == 1


def test_strength_is_a_share_of_the_strongest_unit_curve_or_not():
    units = [joint(bump(40, 20)), 0.15 * joint(bump(80, 20)), 0.25 * joint(bump(20, 20))]
    responses = np.concatenate(units, axis=3)
    scores = score_curves(responses, ANGLES, RADII, STYLES)
    assert CurveThresholds().curves(scores) == [2, 0]
    assert CurveThresholds(strength=0.1).curves(scores) == [2, 0, 1]
    louder = score_curves(
        np.concatenate([responses, 6 * joint(np.ones(72))], axis=3), ANGLES, RADII, STYLES
    )
    assert CurveThresholds().curves(louder) == []


def test_half_width_is_linear_between_samples():
    triangle = np.maximum(0, 1 - np.abs((np.arange(36) * 10.0 + 180) % 360 - 180) / 25)
    assert half_width(triangle[:, None])[0] == pytest.approx(25.0)


def test_coverage_names_the_gap():
    assert coverage([]).degrees == 360
    assert coverage([70.0]).degrees == 360
    gap = coverage([10.0, 350.0, 100.0, 190.0, 280.0])
    assert (gap.start, gap.degrees, gap.middle) == (10, 90, 55)
    assert coverage(
        [float(angle) for angle in (300, 30, 60, 100, 140, 180, 220)]
    ).middle == pytest.approx(345)


def test_minima_of_a_circular_curve():
    assert minima(np.array([0.0, 1, 0.5, 2, 3])) == [0, 2]
    assert minima(np.array([0.0, 3, 1, 1, 1, 2, 0])) == [3, 6]
    assert minima(np.ones(5)) == []


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, tuple[list[int], np.ndarray]]:
    layers = json.loads((shared / "facts" / "distill_radial_tuning.json").read_text())
    return {
        name: (
            layer["neurons"],
            np.array([layer["activations"][str(n)] for n in layer["neurons"]]).T,
        )
        for name, layer in layers.items()
    }


def score_radial(radial_AD: np.ndarray):
    orientations = np.arange(len(radial_AD)) * 360 / len(radial_AD)
    return score_curves(radial_AD[:, None, None, :], orientations, np.ones(1), ("line",))


def test_distills_mixed3b_family_scores_as_curves(published):
    units, radial_AD = published["mixed3b"]
    scores = score_radial(radial_AD)
    assert len(CurveThresholds().curves(scores)) == len(units) == 10
    assert scores.resultant.min() > 0.885
    assert scores.resultant.max() < 0.965
    assert scores.width.min() == pytest.approx(28, abs=1)
    assert scores.width.max() == pytest.approx(68, abs=1)
    peaks = dict(zip(units, scores.peak, strict=True))
    for unit, (peak, height) in {379: (243.0, 669), 342: (22.5, 555), 349: (181.0, 830)}.items():
        assert angle_between(peaks[unit], peak) <= 0.5
        assert scores.max[units.index(unit)] == pytest.approx(height, abs=1)
    gap = coverage(list(scores.peak))
    assert gap.degrees == pytest.approx(68, abs=0.5)
    assert gap.start == pytest.approx(290, abs=0.5)


def test_distills_envelope_falls_at_206_and_at_329_degrees(published):
    curve = envelope(published["mixed3b"][1])
    low = {i * 0.5: round(float(curve[i]), 2) for i in minima(curve)}
    assert {angle: height for angle, height in low.items() if height < 0.79} == {
        206.0: 0.31,
        329.5: 0.34,
    }


def test_early_layers_echo(published):
    scores = score_radial(published["conv2d2"][1])
    assert scores.echo.min() > 0.1
    assert CurveThresholds().curves(scores) == []
