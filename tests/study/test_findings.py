"""What is made of the scores: members, near misses, tables, figures, the planted truth."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tendril.study.curves.figures import ring
from tendril.study.curves.planted import planted_curves, planted_truths
from tendril.study.curves.truth import Truth
from tendril.study.curves.words import envelope_text, headline
from tendril.study.measures.curve_scores import CurveThresholds, degrees

from ..helpers.study_example import family, findings


def test_members_come_in_order_of_orientation():
    found = family("unit", [200.0, 10.0, 90.0], others=0)
    assert found.members == [1, 2, 0]
    assert found.gap.degrees == pytest.approx(170, abs=0.5)
    assert found.gap.middle == pytest.approx(285, abs=0.5)
    member, error = found.nearest(94.0)
    assert member == 2 and error == pytest.approx(4, abs=0.2)


def test_an_orientation_just_below_360_degrees_sorts_and_prints_as_0():
    made = family("unit", [359.99, 200.0, 10.0], others=0)
    scores = replace(made.scores, orientation=np.array([359.99, 200.0, 10.0]))
    made.__dict__["scores"] = scores  # in place of the measured ones
    assert made.members == [0, 2, 1]
    assert f"{made.orientation(0):.1f}" == "0.0"
    assert [entry["orientation"] for entry in made.listing()] == [0.0, 10.0, 200.0]


def test_near_misses_fail_one_threshold_narrowly_and_say_which():
    made = family("unit", [0.0, 90.0, 180.0], others=0)
    responses = made.responses.copy()
    opposite = np.roll(responses[..., 0], 36, axis=0)
    responses[..., 0] += 0.15 * opposite
    responses[..., 1] *= 0.15 * responses[..., 2].max() / responses[..., 1].max()
    changed = replace(made, responses=responses, thresholds=CurveThresholds(resultant=0.5))
    reasons = dict(changed.near_misses())
    assert changed.members == [2]
    assert reasons[0].startswith("echo 0.15 > 0.1")
    assert reasons[1].startswith("strength 0.")
    far = replace(changed, thresholds=CurveThresholds(resultant=0.5, echo=0.0, strength=0.9))
    assert dict(far.near_misses()) == {}


def test_tables_hold_every_unit(tmp_path: Path):
    made = family("latent", [0.0, 90.0], others=5)
    made.write_csv(tmp_path / "latents.csv")
    rows = list(csv.DictReader((tmp_path / "latents.csv").read_text().splitlines()))
    assert [int(row["latent"]) for row in rows] == list(range(7))
    assert [i for i, row in enumerate(rows) if row["curve"] == "1"] == sorted(made.members)
    assert float(rows[1]["orientation"]) == pytest.approx(made.orientation(1), abs=1e-3)
    listed = made.listing()
    assert [entry["latent"] for entry in listed] == made.members
    assert set(listed[0]) == {
        *("latent", "orientation", "resultant", "echo", "max", "rival", "rival_ratio")
    }


def test_what_was_planted_is_compared_with_the_nearest():
    found = {"unit": (3, 5.9), "latent": None}
    truth = Truth(0, 22.5, found)
    assert truth.recovered("unit") and not truth.recovered("latent")
    assert not Truth(0, 22.5, {"unit": (3, 6.1)}).recovered("unit")
    made = replace(
        findings(), truths=[truth, Truth(1, 45.0, {"unit": (4, 9.0), "latent": (2, 1.0)})]
    )
    chances = made.chance_figures()
    assert set(chances["chance_latents"]) == {"gap", "envelope"}
    assert made.figures() | {"curve_units": 0, "curve_latents": 0} == chances | {
        "curve_units": 0,
        "curve_latents": 0,
        "gap_units": round(made.units.gap.degrees, 2),
        "gap_latents": round(made.latents.gap.degrees, 2),
        "branches": made.branch_counts(),
        "planted": 2,
        "recovered_units": 1,
        "recovered_latents": 1,
        "worst_error_degrees": 180.0,
        "recovered_by_chance": pytest.approx(made.recovered_by_chance(), abs=0.05),
    }


def test_aligned_latents_are_judged_by_where_they_point():
    made = findings()
    first, second = made.latents.members[:2]
    near, far = made.latents.orientation(first) + 5.0, made.latents.orientation(second) + 7.0
    truths = [Truth(0, near, {}, (first, 0.9)), Truth(1, far, {}, (second, 0.5))]
    assert replace(made, truths=truths).aligned_result() == {
        "aligned_latents": 1,
        "aligned_cosine": 0.7,
    }
    assert replace(made, truths=[Truth(0, near, {})]).aligned_result() == {}


def test_many_detectors_recover_much_by_chance():
    made = findings()
    angles = np.random.default_rng(0).uniform(0, 360, (400, len(made.latents.members)))
    planted = np.array([truth.orientation for truth in made.truths])
    apart = abs((angles[:, None] - planted[:, None] + 180) % 360 - 180).min(axis=2)
    assert made.recovered_by_chance() == pytest.approx((apart <= 6).sum(axis=1).mean(), abs=0.3)


def test_units_are_counted_by_part_of_the_site():
    made = findings(latents=False, truths=False)
    counts = made.branch_counts()
    assert sum(counts.values()) == len(made.units.members)
    assert counts["mixed3b_1x1"] == sum(unit < 8 for unit in made.units.members)
    assert made.figures()["gap_latents"] is None
    assert "planted" not in made.figures()


def alike(angles, kind="unit"):
    """Detectors that differ in orientation only."""
    one = family(kind, [0.0], others=0, pictures=0)
    turned = [np.roll(one.responses, round(angle / 5), axis=0) for angle in angles]
    return replace(one, responses=np.concatenate(turned, axis=3), patches={})


def evenly(count: int):
    return alike([360.0 * i / count for i in range(count)])


@pytest.mark.parametrize("count", [2, 4, 6])
def test_ties_are_not_named_as_the_minimum_or_the_widest_gap(count: int):
    """Evenly spread detectors: all dips are equally deep, and all gaps equally wide."""
    made = replace(findings(latents=False), units=evenly(count), latents=None)
    text = envelope_text(made)
    assert f"lowest at {count} orientations alike" in text
    for i in range(count):
        assert f"{360 * (i + 0.5) / count:.0f}°" in text
    tile = next(one for one in headline(made) if "widest gap" in one["text"])
    assert f"{count} gaps are that wide" in tile["text"] and "about" not in tile["text"]
    assert sum(one["widest"] for one in ring(made.units)["gaps"]) == (count if count < 13 else 0)


def test_a_single_lowest_dip_is_named():
    made = replace(findings(latents=False), units=alike([0.0, 60.0, 120.0, 180.0, 240.0, 270.0]))
    assert "is lowest at 315°, where" in envelope_text(made)
    assert "about 315°" in headline(made)[1]["text"]


def test_a_flat_envelope_has_no_dip():
    made = evenly(3)
    same, any_curve = np.ones_like(made.responses), CurveThresholds(0.0, 1.0, 0.0)
    flat = replace(made, responses=same, thresholds=any_curve)
    assert "has no dip" in envelope_text(replace(findings(latents=False), units=flat))


@pytest.mark.parametrize(
    ("angle", "shown"), [(359.997, "0°"), (359.6, "0°"), (0.4, "0°"), (359.4, "359°")]
)
def test_no_orientation_is_shown_as_360_degrees(angle: float, shown: str):
    assert degrees(angle) == shown
    assert degrees(359.96, 1) == "0.0°"


def test_planted_features_have_the_number_of_a_unit_only_where_they_are_one():
    names = []
    for subject in ("planted", "handmade"):
        for curve in planted_curves(subject):
            on = curve.direction.nonzero().flatten().tolist()
            assert curve.unit == (on[0] if len(on) == 1 else None)
        truths = planted_truths(subject, "mixed3b_5x5", [], {}, None)
        for truth in truths:
            pattern = r"feature \d+" if truth.unit is None else f"unit {truth.unit}"
            assert re.fullmatch(pattern, truth.label)
            names.append(truth.label)
    assert any(name.startswith("feature") for name in names)
    assert Truth(None, 10.0, {}, None, "feature 3").label == "feature 3"
    assert Truth(3, 10.0, {}).label == "unit 3"
