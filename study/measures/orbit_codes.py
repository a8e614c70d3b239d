"""Codes of orbits in every pose, in one form for every kind of dictionary.

The orbit x of a patch p, seen in pose a, is x[g a], the orbit of T_a p. The codes z [N, G, S] of N
orbits in all poses are those of

    an SAE of single vectors, or units   the vector x[a], which is all that such a dictionary reads
    a group crosscoder                    the orbit x[g a]
    an equivariant group crosscoder       the same; the copy h of family f is latent f G + h

Codes are multiplied by the norm of the latent's direction, so that those of different latents can
be compared.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.equivariant import EquivariantCrosscoder
from tendril.models.dictionaries.sae import Stored

BATCH = 64


def is_single(dictionary: Stored, width: int) -> bool:
    """True for a dictionary of single vectors of that width."""
    return not isinstance(dictionary, EquivariantCrosscoder) and dictionary.width == width


@torch.no_grad()
def orbit_codes(
    dictionary: Stored, x_NGD: Float32[np.ndarray, "n g d"], group: Dihedral
) -> Float32[np.ndarray, "n g s"]:
    """The codes of orbits in every pose; see the module."""
    norms_S = dictionary.W_dec.flatten(1).norm(dim=1).cpu().numpy()
    parts = []
    for start in range(0, len(x_NGD), BATCH):
        x = torch.from_numpy(x_NGD[start : start + BATCH]).to(dictionary.W_dec)
        parts.append(_codes(dictionary, x, group).float().cpu().numpy())
    z_NGS = np.concatenate(parts)
    if z_NGS.shape[2] != len(norms_S):
        norms_S = np.repeat(norms_S, z_NGS.shape[2] // len(norms_S))
    return np.asarray(z_NGS * norms_S, np.float32)


@torch.no_grad()
def orbit_fvu(dictionary: Stored, x_NGD: Float32[np.ndarray, "n g d"]) -> float:
    """sum ||x - x_hat||^2 / sum ||x - mean||^2 over all elements of orbits, with the mean of each
    element where the dictionary is one of orbits, and of all where it is one of single vectors."""
    single = is_single(dictionary, x_NGD.shape[2])
    flat = x_NGD.reshape(-1, x_NGD.shape[2]) if single else x_NGD
    wrong, total = 0.0, float(((flat - flat.mean(axis=0)) ** 2).sum())
    step = BATCH * x_NGD.shape[1] if single else BATCH
    for start in range(0, len(flat), step):
        x = torch.from_numpy(flat[start : start + step]).to(dictionary.W_dec)
        if not single and not isinstance(dictionary, EquivariantCrosscoder):
            x = x.flatten(1)
        wrong += float((x - dictionary.decode(dictionary.encode(x))).square().sum())
    return wrong / total if total > 0 else 0.0


def _codes(
    dictionary: Stored, x_NGD: Float[torch.Tensor, "n g d"], group: Dihedral
) -> Float[torch.Tensor, "n g s"]:
    if is_single(dictionary, x_NGD.shape[2]):
        return dictionary.encode(x_NGD)
    table_GG = torch.from_numpy(group.table_GG)
    if not isinstance(dictionary, EquivariantCrosscoder):
        poses = [dictionary.encode(x_NGD[:, table_GG[:, a]].flatten(1)) for a in range(len(group))]
        return torch.stack(poses, dim=1)
    z_NFH = dictionary.encode(x_NGD)  # in pose a the copy h of a family takes the place of a^-1 h
    from_AH = table_GG[torch.from_numpy(group.inverse_G)]
    return z_NFH[:, :, from_AH].transpose(1, 2).flatten(2)
