"""Whether the angular frequencies of a latent agree on an axis: a null of equal angular spectrum.

Smooth blocks have much of their power in the fixed space of the best reflection whatever they
represent: a single angular frequency always has an axis. So a large fraction alone shows no
reflection. Write the correlation of the blocks with their reflections in the axes 180 a / n as

    r(R_a M) / r(0) = sum_j |c_j| cos(2 pi j a / n + psi_j),

where j counts turns of the pattern in a turn of the image. A reflection fixes the pattern only if
all terms have their maximum at one a. The null keeps every |c_j| and draws the phases psi_j at
random, independently for each frequency. This is what an independent turn of each frequency of the
pattern does, so it keeps the power of every irreducible representation, and the fractions of all
turns, and is exact for patterns whose frequencies have independent phases. The statistic is the
maximum over all a, between the axes of the group too, for the blocks and for each draw; the choice
of the best axis is therefore in the null.

D_d has d axes at once, for which only multiples of d count among the frequencies. With fewer than
two such frequencies in the group the null says nothing.

Source: surrogate data of Theiler et al., Testing for nonlinearity in time series, 1992.
"""

import numpy as np
from jaxtyping import Complex128, Float, Float64

from tendril.data.group.dihedral import Dihedral

DRAWS = 399  # of each latent by itself, so that the P value is exact however few they are
FINER = 8  # places at which the maximum is looked for, per axis of the group
CHUNK = 64  # latents at a time
TIED = 1e-3  # of all |c_j|: a draw that comes as near to the observed maximum counts as reaching it


def cross_spectrum(
    correlation_FG: Float64[np.ndarray, "f g"], group: Dihedral
) -> Complex128[np.ndarray, "f w"]:
    """c_j for j = 0 ... n / 2, from r(s) / r(0) of the reflections s."""
    n = group.rotations
    c_FW: Complex128[np.ndarray, "f w"] = np.fft.rfft(correlation_FG[:, n:], axis=1) / n
    c_FW[:, 1 : (n + 1) // 2] *= 2
    return c_FW


def frequencies(group: Dihedral, turns: int) -> list[int]:
    """The frequencies that D_d can fix, without the mean: multiples of d."""
    return list(range(turns, group.rotations // 2 + 1, turns))


def can_test(group: Dihedral, turns: int) -> bool:
    """True if the group has two frequencies or more that can agree on the axes of D_d."""
    return group.reflections and len(frequencies(group, turns)) > 1


def alignment_p(
    correlation_FG: Float64[np.ndarray, "f g"], group: Dihedral, turns: int, seed: int = 0
) -> Float64[np.ndarray, " f"]:
    """The fraction of draws whose largest correlation with a reflection in D_d reaches that of each
    latent, the latent itself counted as one: a P value for the axes of D_d.

    It is exact: under the null it is at most p in a fraction p of latents, for p a multiple of
    1 / (DRAWS + 1). It is 1 where no frequency of the latent has an axis.
    """
    chosen_W = np.array(frequencies(group, turns))
    c_FW = cross_spectrum(correlation_FG, group)[:, chosen_W]
    places_A = np.arange(FINER * group.rotations // turns) / FINER
    wave_WA = np.exp(2j * np.pi * places_A * chosen_W[:, None] / group.rotations)
    size_F = np.abs(c_FW).sum(axis=1)
    seen_F = _peak((c_FW @ wave_WA).real) - TIED * size_F
    # real and imaginary parts in one product of real matrices, half as wide in memory
    parts_XA = np.concatenate([wave_WA.real, -wave_WA.imag]).astype(np.float32)
    rng = np.random.Generator(np.random.Philox(seed))
    p_F = np.ones(len(c_FW))
    for start in range(0, len(c_FW), CHUNK):
        few = slice(start, start + CHUNK)
        size_FW = np.abs(c_FW[few])
        phases_FMW = rng.uniform(0, 2 * np.pi, (len(size_FW), DRAWS, len(chosen_W)))
        if 2 * chosen_W[-1] == group.rotations:  # two representations of dimension 1: a sign
            phases_FMW[..., -1] = np.pi * (phases_FMW[..., -1] > np.pi)
        c_FMW = size_FW[:, None] * np.exp(1j * phases_FMW)
        c_FMX = np.concatenate([c_FMW.real, c_FMW.imag], axis=2).astype(np.float32)
        reached_F = (_peak(c_FMX @ parts_XA) >= seen_F[few, None]).sum(axis=1)
        p_F[few] = (1 + reached_F) / (DRAWS + 1)
    return p_F


def _peak(values_XA: Float[np.ndarray, "*x a"]) -> Float[np.ndarray, "*x"]:
    """The maximum over places on a circle, between them that of the parabola through three."""
    size = values_XA.shape[-1]
    at_X1 = values_XA.argmax(axis=-1)[..., None]
    before_X, top_X, after_X = (
        np.take_along_axis(values_XA, (at_X1 + step) % size, axis=-1)[..., 0] for step in (-1, 0, 1)
    )
    bend_X = 2 * top_X - before_X - after_X
    rise_X = (after_X - before_X) ** 2
    return np.asarray(
        top_X + np.divide(rise_X, 8 * bend_X, out=np.zeros_like(top_X), where=bend_X > 0)
    )


def phase_randomised(
    blocks_FGD: Float[np.ndarray, "f g d"], group: Dihedral, rng: np.random.Generator
) -> Float64[np.ndarray, "f g d"]:
    """Blocks of equal angular spectrum that no reflection fixes: each angular frequency is turned
    by an angle of its own, drawn for each latent.

    Right multiplication by a turn moves the blocks of the turns one way and those of the
    reflections the other, so frequency j of the two gets opposite phases. The power of every
    frequency, and the fractions of all turns, stay. Frequency n / 2 gets a sign, which may exchange
    B1 and B2.
    """
    n, sheets = group.rotations, len(group) // group.rotations
    sheets_FMWD = np.fft.rfft(
        blocks_FGD.astype(np.float64).reshape(len(blocks_FGD), sheets, n, blocks_FGD.shape[2]),
        axis=2,
    )
    phases_FW = rng.uniform(0, 2 * np.pi, (len(blocks_FGD), sheets_FMWD.shape[2]))
    phases_FW[:, 0] = 0
    turned_FW = np.exp(1j * phases_FW)
    if n % 2 == 0:
        turned_FW[:, -1] = rng.choice([-1.0, 1.0], len(blocks_FGD))
    sheets_FMWD[:, 0] *= turned_FW[:, :, None]
    if group.reflections:
        back_FW = turned_FW.conj()
        if n % 2 == 0:
            back_FW[:, -1] = 1
        sheets_FMWD[:, 1] *= back_FW[:, :, None]
    return np.fft.irfft(sheets_FMWD, n, axis=2).reshape(blocks_FGD.shape)
