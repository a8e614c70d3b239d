"""The action on images: a homomorphism, exact for elements that permute pixels."""

import numpy as np
import pytest
import torch

from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import FADE, Warp, finer

SIZE, SIDE = 31, 96
GREY = (0.5, 0.5, 0.5)
MIDDLE = np.array([[47.0, 47.0]])


def image(seed: int = 0) -> torch.Tensor:
    """Band-limited noise without wavelengths below five pixels."""
    noise = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft2(noise)
    fy, fx = torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)[None]
    spectrum[:, torch.hypot(fy, fx) > 0.2] = 0
    smooth: torch.Tensor = torch.fft.irfft2(spectrum, s=(SIDE, SIDE))
    return 0.5 + 0.2 * smooth / smooth.std()


def orbit(warp: Warp, picture: torch.Tensor, turn: float = 0.0) -> torch.Tensor:
    return warp.orbits(picture, MIDDLE, np.array([turn]))[0]


def test_the_identity_is_the_image_but_for_the_fade() -> None:
    patch = orbit(Warp(Dihedral(4), SIZE, GREY), image())[0]
    offset = torch.arange(SIZE) - SIZE // 2
    radius = torch.hypot(offset[:, None].float(), offset.float())
    inside = radius < FADE * SIZE / 2
    there = image()[:, 47 - 15 : 47 + 16, 47 - 15 : 47 + 16]
    torch.testing.assert_close(patch[:, inside], there[:, inside], atol=1e-5, rtol=0)
    assert (patch[:, radius > SIZE / 2] - 0.5).abs().max() < 1e-6


@pytest.mark.parametrize("rotations", [3, 4, 6, 8])
def test_elements_move_points_as_their_matrices_say(rotations: int) -> None:
    """A spot moves to the place given by the matrix."""
    group = Dihedral(rotations)
    spot = torch.zeros(3, SIDE, SIDE)
    yy, xx = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    at = np.array([7.0, 4.0])  # x, y from the centre
    spot += torch.exp(-((xx - 47 - at[0]) ** 2 + (yy - 47 - at[1]) ** 2) / 6.0)
    patches = orbit(Warp(group, SIZE, (0.0, 0.0, 0.0)), spot)[:, 0]
    offset = torch.arange(SIZE) - SIZE // 2
    for g, patch in enumerate(patches):
        mass = patch.sum()
        found = np.array(
            [float((patch * offset).sum() / mass), float((patch * offset[:, None]).sum() / mass)]
        )
        assert np.abs(found - group.matrix_G22[g] @ at).max() < 0.05


@pytest.mark.parametrize("rotations", [1, 2, 3, 4, 6, 16])
def test_the_orbit_of_a_transformed_image_is_the_orbit_permuted(rotations: int) -> None:
    """x(T_h p)[g] = x(p)[gh], exactly for quarter turns and reflections."""
    group = Dihedral(rotations)
    warp = Warp(group, SIZE, GREY)
    side = 95  # odd, so that the centre of the patch is a pixel and flips keep it
    picture = image()[:, :side, :side]
    turns = {0: lambda p: p, rotations / 4: lambda p: torch.rot90(p, -1, (1, 2))}
    turns |= {rotations / 2: lambda p: torch.rot90(p, 2, (1, 2))}
    plain = orbit(warp, picture)
    for k, turn in turns.items():
        if k != int(k):
            continue
        for m in (0, 1):
            h = group.element(m, int(k))
            moved = turn(picture.flip(1) if m else picture)  # R_k M
            permuted = plain[torch.from_numpy(group.table_GG[:, h])]
            torch.testing.assert_close(orbit(warp, moved), permuted, atol=2e-5, rtol=0)


def test_two_small_turns_are_one_large_one() -> None:
    """Rotating twice by 22.5 degrees equals 45 degrees on band-limited images, within 1 %."""
    warp = Warp(Dihedral(16), SIDE - 1, GREY)
    middle = np.array([[(SIDE - 1) / 2] * 2])
    warp._window_PP.fill_(1)
    once = Warp(Dihedral(16), SIZE, GREY)
    turned = warp.turned(image(), middle, np.array([22.5]))[0]
    there = np.array([[(SIDE - 2) / 2] * 2])
    twice = once.turned(turned, there, np.array([22.5]))
    straight = once.turned(image(), middle, np.array([45.0]))
    assert float((twice - straight).std() / straight.std()) < 0.01


def test_a_turn_before_the_group_is_one_more_turn() -> None:
    group = Dihedral(8)
    warp = Warp(group, SIZE, GREY)
    permuted = orbit(warp, image())[torch.from_numpy(group.table_GG[:, group.element(0, 1)])]
    torch.testing.assert_close(orbit(warp, image(), 45.0), permuted, atol=2e-5, rtol=0)


def test_pixels_are_among_the_finer_ones() -> None:
    picture = image()
    torch.testing.assert_close(finer(picture)[:, ::4, ::4], picture, atol=1e-5, rtol=0)
