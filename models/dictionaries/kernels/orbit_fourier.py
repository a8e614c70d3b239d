"""All copies of all families against all orbits, by Fourier transforms over the rotations.

pre[f, h] = sum_g <x[g], E_f[g h]> multiplies each orbit by F G copies of G D numbers, so its cost
grows as G^2. Over the n rotations of one reflection, however, it is a cyclic correlation, which a
Fourier transform turns into a product at each frequency w. With g = (m, k) for "reflect m times,
rotate k times", and g h = (m + p, k + (-1)^m q) for h = (p, q),

    pre^[f, p](w) = <conj x^[0](w), E^_f[p](w)> + <x^[1](w), conj E^_f[1 + p](w)>

(the second term only if there are reflections), so the cost grows as G. Source: Cohen & Welling
(1602.07576) for the correlation over a group; the convolution theorem.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from tendril.data.group.dihedral import Dihedral

PAY = 768  # number of copies, F G, from which transforms are faster than the product


def waves_of(x_NGD: Float[Tensor, "n g d"], group: Dihedral) -> Complex[Tensor, "w n e"]:
    """x^[0](w) and conj x^[1](w), joined, for each frequency."""
    x_WNMD = _transformed(x_NGD, group)
    if group.reflections:
        return torch.cat([x_WNMD[:, :, 0], x_WNMD[:, :, 1].conj()], dim=2)
    return x_WNMD.squeeze(2)


def copies_of(W_FGD: Float[Tensor, "f g d"], group: Dihedral) -> Complex[Tensor, "w s e"]:
    """The factors of the waves of an orbit, for each frequency and (f, p)."""
    W_WFMD = _transformed(W_FGD, group)
    if group.reflections:
        return torch.cat([W_WFMD.conj(), W_WFMD.flip(2)], dim=3).flatten(1, 2)
    return W_WFMD.conj().squeeze(2)


def _transformed(x_NGD: Float[Tensor, "n g d"], group: Dihedral) -> Complex[Tensor, "w n m d"]:
    x_NMKD = x_NGD.reshape(len(x_NGD), -1, group.rotations, x_NGD.shape[2])
    x_NMWD: Tensor = torch.fft.rfft(x_NMKD, dim=2)
    return x_NMWD.movedim(2, 0)


def correlated(
    waves_WNE: Complex[Tensor, "w n e"], copies_WSE: Complex[Tensor, "w s e"], group: Dihedral
) -> Float[Tensor, "n f g"]:
    """sum_g <x[g], E_f[g h]> for every f and h."""
    conjugate_WNS = torch.bmm(waves_WNE, copies_WSE.mT)
    pre_NSK: Tensor = torch.fft.irfft(conjugate_WNS.conj().movedim(0, 2), n=group.rotations, dim=2)
    return pre_NSK.reshape(len(pre_NSK), -1, len(group))
