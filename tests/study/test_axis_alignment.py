"""Chiral blocks of every smoothness pass in 5 % of cases, and planted reflections are found."""

import numpy as np
import pytest
from scipy.stats import binom

from tendril.data.group.dihedral import Dihedral
from tendril.study.measures.axis_alignment import (
    alignment_p,
    can_test,
    cross_spectrum,
    phase_randomised,
)
from tendril.study.measures.stabilisers import measure
from tendril.study.measures.symmetry_analysis import (
    CHIRAL,
    RAW,
    RAW_CHIRAL,
    SymmetryAnalysis,
    analyse_blocks,
)
from tendril.study.measures.symmetry_thresholds import SymmetryThresholds

from ..helpers.symmetric_blocks import Units, pattern, reflection, symmetric

MANY = 600
MOST = int(binom.ppf(0.999, MANY, 0.05))  # that 5 % reach by chance, once in a thousand


def smooth(
    group: Dihedral, width: float, channels: int, rng: np.random.Generator, axes: int = 0
) -> np.ndarray:
    """Blocks whose power falls with the angular frequency, chiral or with `axes` axes, the first
    at any of the group; the frequencies of chiral ones have independent phases by construction."""
    n = group.rotations
    j_W = np.arange(n // 2 + 1)
    shape = (MANY, 2, len(j_W), channels)
    waves = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    waves *= (np.exp(-((j_W / width) ** 2) / 2) * (j_W > 0))[:, None]
    if axes:
        turn_F1 = 2 * np.pi * rng.integers(0, n, (MANY, 1)) / n
        waves[:, 1] = waves[:, 0] * np.exp(1j * j_W * turn_F1)[..., None]
        waves[:, :, j_W % axes > 0] = 0
    return np.fft.irfft(waves, n, axis=2).reshape(MANY, len(group), channels)


def analysis(group: Dihedral, blocks_FGD: np.ndarray, anchors: np.ndarray) -> SymmetryAnalysis:
    """With those raw anchors, each of an input of its own."""
    fires, inputs = np.ones(len(blocks_FGD)), np.arange(len(anchors))
    limits = SymmetryThresholds()
    return analyse_blocks("run", blocks_FGD, fires, group, anchors, inputs, limits, tied=False)


@pytest.mark.parametrize("rotations", [16, 32])
@pytest.mark.parametrize(("width", "channels"), [(0.6, 8), (1, 1), (1, 8), (2, 2), (4, 24)])
def test_chiral_blocks_pass_in_one_of_twenty_cases(
    rotations: int, width: float, channels: int
) -> None:
    """Also where a fraction alone would pass half of them: one smooth channel."""
    group, rng = Dihedral(rotations), np.random.default_rng(rotations)
    p_F = alignment_p(measure(smooth(group, width, channels, rng), group).correlation, group, 1)
    assert (p_F <= 0.05).sum() <= MOST


@pytest.mark.parametrize("rotations", [16, 32])
@pytest.mark.parametrize("width", [0.6, 1.0, 2.0, 4.0])
def test_smooth_latents_against_rough_anchors_are_not_called_symmetric(
    rotations: int, width: float
) -> None:
    """Anchors of another smoothness say nothing about smooth latents: their limit is too low."""
    group, rng = Dihedral(rotations), np.random.default_rng(rotations)
    rough = smooth(group, 8.0, 4, rng)
    one_channel = np.pad(smooth(group, width, 1, rng), ((0, 0), (0, 0), (0, 3)))
    found = analysis(group, one_channel, rough)
    by_anchors = np.quantile(found.null.fractions[RAW]["D1"], 0.95)
    assert by_anchors < 0.7
    if width < 4:
        assert (found.symmetry.of_kind("D1")[0] > by_anchors).mean() > 0.5
    assert found.counts().get("one reflection", 0) <= MOST
    counted = {one.source: one for one in found.rates}
    assert list(counted) == [RAW, RAW_CHIRAL, CHIRAL]
    for one in counted.values():
        rate, low, _ = one.rate("one reflection")
        assert low <= 0.05 and rate <= 0.08, one
    assert counted[RAW].total == MANY // 2, "anchors of inputs that the null has not seen"


@pytest.mark.parametrize("rotations", [16, 32])
@pytest.mark.parametrize(("axes", "name"), [(1, "one reflection"), (2, "both")])
def test_planted_reflections_are_found_through_noise(rotations: int, axes: int, name: str) -> None:
    group, rng = Dihedral(rotations), np.random.default_rng(0)
    planted = smooth(group, 2.5 * axes, 8, rng, axes)
    planted += 0.25 * planted.std() * rng.normal(size=planted.shape)
    found = analysis(group, planted, smooth(group, 2.5 * axes, 8, rng))
    assert found.counts().get(name, 0) > 0.95 * MANY


def test_a_single_frequency_has_an_axis_whatever_it_is_and_shows_no_reflection() -> None:
    group = Dihedral(16)
    angle_G = 2 * np.pi * (np.arange(32) % 16) / 16 * np.where(np.arange(32) < 16, 1, -1)
    symmetry = measure(np.stack([np.cos(angle_G), np.sin(2 * angle_G)])[..., None], group)
    assert np.allclose(symmetry.of_kind("D1")[0], 1)
    assert np.allclose(alignment_p(symmetry.correlation, group, 1), 1)


def test_units_that_see_a_symmetric_picture_agree_on_its_axis() -> None:
    """Also at an axis between those of the group."""
    group, rng = Dihedral(16), np.random.default_rng(3)
    units = Units(rng)
    mirrored = [
        units.orbit(symmetric(pattern(rng), [np.eye(2), reflection(a)]), group)
        for a in rng.uniform(0, 180, 40)
    ]
    symmetry = measure(np.stack(mirrored), group)
    assert (alignment_p(symmetry.correlation, group, 1) <= 0.05).mean() > 0.9


def test_random_phases_keep_the_spectrum_and_the_turns_and_no_reflection() -> None:
    group, rng = Dihedral(8), np.random.default_rng(1)
    blocks = smooth(group, 2.0, 6, rng, axes=1)
    before = measure(blocks, group)
    after = measure(phase_randomised(blocks, group, rng), group)
    for name in ("A1", "A2", "E1", "E2", "E3"):
        assert np.allclose(after.irreps[name], before.irreps[name])
    for kind in ("C2", "C4"):
        assert np.allclose(after.of_kind(kind)[0], before.of_kind(kind)[0])
    assert np.median(before.of_kind("D1")[0]) > 0.9 > np.median(after.of_kind("D1")[0])
    kept = (abs(cross_spectrum(s.correlation, group))[:, :4] for s in (before, after))
    assert np.allclose(*kept)


def test_small_groups_have_too_few_frequencies_to_test_many_axes() -> None:
    assert can_test(Dihedral(16), 1) and can_test(Dihedral(16), 4)
    assert not can_test(Dihedral(16), 8) and not can_test(Dihedral(3), 1)
    assert not can_test(Dihedral(16, reflections=False), 1)
