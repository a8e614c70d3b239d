"""Chance levels of gaps: against exact distributions and brute force."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tendril.study.measures.curve_scores import Gap, gaps
from tendril.study.measures.gap_chance import (
    compare,
    copies_a_unit,
    envelope_chance,
    gap_chance,
    holm,
    left_over,
    subsets,
    uniform,
    widest_chance,
    widest_gaps,
)


def exact_at_most(count: int, degrees: float) -> float:
    """P(widest of `count` gaps <= degrees) by Stevens (1939), in exact arithmetic.

    P(G > x) = sum over k >= 1 with k x < 1 of (-1)^(k + 1) C(n, k) (1 - k x)^(n - 1)
    """
    x = Fraction(degrees) / 360
    above, k = Fraction(0), 1
    while k <= count and k * x < 1:
        above += (-1) ** (k + 1) * math.comb(count, k) * (1 - k * x) ** (count - 1)
        k += 1
    return float(1 - above)


@pytest.mark.parametrize("count", [2, 5, 20, 37, 120])
def test_p_of_the_widest_gap_equals_the_exact_distribution(count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(3):
        angles = rng.uniform(0, 360, count).tolist()
        chance = widest_chance(angles)
        assert chance is not None
        exact = exact_at_most(count, chance.observed)
        assert abs(chance.p - exact) < 4 * math.sqrt(exact * (1 - exact) / 10_000) + 1e-3
        large = widest_chance(angles, large=True)
        assert large is not None and abs(large.p - (1 - exact)) < 0.025
        expected = 360 * sum(1 / i for i in range(1, count + 1)) / count
        assert chance.mean == pytest.approx(expected, rel=0.02)


def test_p_values_are_uniform_under_the_null_hypothesis() -> None:
    rng = np.random.default_rng(1)
    units = rng.uniform(0, 360, 8).tolist()
    wide = [gap for gap in gaps(units) if gap.degrees >= 30]
    assert wide
    p = []
    for _ in range(60):
        found = gap_chance(wide, rng.uniform(0, 360, 15).tolist(), [False] * 15, {})
        assert found is not None and found.left is not None
        p.append(found.left.p)
    assert np.mean(np.array(p) <= 0.1) < 0.22
    assert 0.38 < np.mean(p) < 0.62


def test_what_remains_of_gaps_equals_brute_force() -> None:
    rng = np.random.default_rng(2)
    found = [Gap(350.0, 40.0), Gap(100.0, 35.0)]
    angles_NM = rng.uniform(0, 360, (50, 12))
    for angles, total in zip(angles_NM, left_over(found, angles_NM), strict=True):
        expected = 0.0
        for gap in found:
            grid = np.arange(0, gap.degrees, 0.01)
            inside = sorted((a - gap.start) % 360 for a in angles)
            edges = [0.0, *(a for a in inside if a < gap.degrees), gap.degrees]
            widest = max(
                (((grid >= a) & (grid < b)).sum() * 0.01) for a, b in itertools.pairwise(edges)
            )
            expected += widest
        assert total == pytest.approx(expected, abs=0.03)


def test_a_surplus_aimed_at_the_gaps_is_told_from_chance_and_copies_are_not() -> None:
    units = [0.0, 20.0, 60.0, 80.0, 100.0, 120.0, 160.0, 180.0, 200.0, 240.0, 260.0, 300.0, 330.0]
    wide = [gap for gap in gaps(units) if gap.degrees >= 30]
    middles = [gap.middle for gap in wide]
    kept = [True] * len(units)
    filled = gap_chance(wide, [*units, *middles], [*kept, *(False for _ in wide)], {})
    # copies that deviate a little narrow the gaps a little, which is no evidence
    copies = gap_chance(wide, [(angle + 3) % 360 for angle in units], kept, {})
    assert filled is not None and filled.surplus is not None and filled.surplus.p < 0.01
    assert copies is not None and copies.surplus is not None and copies.surplus.p == 1.0


def test_a_control_gives_a_chance_level_of_equal_count_only() -> None:
    units = [0.0, 90.0, 180.0, 270.0]
    rng = np.random.default_rng(3)
    many, few = rng.uniform(0, 360, 60).tolist(), [1.0, 2.0]
    found = gap_chance(
        gaps(units), [45.0, 135.0, 225.0, 315.0], [False] * 4, {"many": many, "few": few}
    )
    assert found is not None and list(found.control) == ["many"]
    assert found.control["many"].p < 0.05
    drawn = subsets(many, 4, draws=100)
    assert drawn.shape == (100, 4) and set(drawn.ravel()) <= set(many)
    assert all(len(set(row)) == 4 for row in drawn)


def test_a_copy_has_most_of_its_power_in_one_channel():
    rows = np.array([[0.0, 3.0, 1.0], [1.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    assert copies_a_unit(rows) == [True, False, False]


def test_holm_equals_the_definition() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_figures_count_as_extreme() -> None:
    assert compare(1.0, np.ones(99)).p == 1.0
    assert compare(0.5, np.ones(99)).p == 0.01
    assert compare(2.0, np.ones(99), large=True).p == 0.01


def test_an_empty_family_has_no_chance_level() -> None:
    assert widest_chance([]) is None and gap_chance([], [], [], {}) is None
    assert widest_gaps(uniform(0, draws=3)).tolist() == [360.0] * 3
    assert envelope_chance(np.zeros((72, 0))) is None


def test_even_tuning_curves_cover_the_circle_better_than_chance() -> None:
    angles = np.arange(0, 360, 5.0)
    even = np.arange(0, 360, 30.0)
    near = (angles[:, None] - even[None] + 180) % 360 - 180
    chance = envelope_chance(np.exp(-((near / 20) ** 2)))
    assert chance is not None and chance.p < 0.01 and chance.observed > chance.high
