"""Dead leaves: a pure function, spectra and colours like photographs', no preferred direction."""

import numpy as np
import pytest

from tendril.data.errors import ConfigError
from tendril.data.inputs.procedural import dead_leaves

SIZE = 224


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([dead_leaves(7, index, SIZE) for index in range(48)]) / 255.0


def test_a_picture_is_a_pure_function_of_seed_index_and_size():
    first = dead_leaves(3, 5, 96)
    dead_leaves(3, 6, 96)
    np.random.default_rng().random(3)
    assert first.dtype == np.uint8 and first.shape == (96, 96, 3)
    assert np.array_equal(first, dead_leaves(3, 5, 96))
    for other in (dead_leaves(3, 6, 96), dead_leaves(5, 3, 96), dead_leaves(4, 5, 96)):
        assert (first != other).any(axis=2).mean() > 0.8


def test_the_power_spectrum_falls_as_that_of_photographs(pictures: np.ndarray):
    grey = pictures.mean(axis=3) - pictures.mean(axis=(1, 2, 3))[:, None, None]
    window = np.hanning(SIZE)
    power = (np.abs(np.fft.fft2(grey * np.outer(window, window))) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE)))
    edges = np.geomspace(3 / SIZE, 0.3, 12)
    bins = np.digitize(frequency, edges)
    means = [
        (np.log(frequency[bins == b].mean()), np.log(power[bins == b].mean())) for b in range(1, 12)
    ]
    slope = np.polyfit(*np.array(means).T, deg=1)[0]
    assert -2.8 < slope < -1.8


def test_edges_point_everywhere_alike(pictures: np.ndarray):
    grey = pictures.mean(axis=3)
    smooth = (grey[:, :-1] + grey[:, 1:])[:, :, :-1] + (grey[:, :-1] + grey[:, 1:])[:, :, 1:]
    across = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    angles = np.degrees(np.arctan2(down, across)) % 360.0
    # Bins about the multiples of 45 degrees, so that the grid's own directions are not split.
    counts, _ = np.histogram(
        (angles + 22.5) % 360.0, bins=8, range=(0, 360), weights=np.hypot(across, down)
    )
    assert np.ptp(counts) / counts.mean() < 0.25


def test_luminance_varies_more_than_colour(pictures: np.ndarray):
    luminance = pictures.mean(axis=3)
    blue_yellow = pictures[..., 2] - pictures[..., :2].mean(axis=-1)
    red_green = pictures[..., 0] - pictures[..., 1]
    assert luminance.std() > 1.2 * blue_yellow.std() > 1.2 * red_green.std() > 0.03
    assert 0.4 < luminance.mean() < 0.6


def test_larger_images_have_more_shapes_instead_of_larger_ones():
    """The density of borders depends little on the size."""

    def borders(size: int) -> float:
        grey = np.stack([dead_leaves(1, i, size).mean(axis=2) for i in range(8)])
        return float((np.abs(np.diff(grey, axis=2)) > 20).mean())

    assert borders(128) == pytest.approx(borders(320), rel=0.3)


@pytest.mark.parametrize("seed, index, size", [(-1, 0, 64), (0, -1, 64), (0, 0, 8)])
def test_what_cannot_be_drawn_is_told(seed: int, index: int, size: int):
    with pytest.raises(ConfigError, match=f"seed {seed}, index {index}, side {size}"):
        dead_leaves(seed, index, size)
