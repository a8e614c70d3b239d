"""Transform blocks of a dictionary that knows no group, from its responses over orbits.

A latent of an SAE of single elements has one direction, and nothing in the dictionary says how the
group moves it. The latents that are active at the other elements of the same orbits do. With
x[g] = a(T_g p), z_s the activation of latent s, x_hat the reconstruction and m its mean, block g of
latent s is

    B_s[g] = sum_n,h z_s(x_n[h]) (x_hat(x_n[g h]) - m) / sum_n,h z_s(x_n[h])

over orbits n and elements h, since x[g h] is block g of the orbit of T_h p. The blocks are sums of
decoder rows, weighted by how often their latents are active together with s. With them one symmetry
analysis serves SAEs and group crosscoders.
"""

import torch
from jaxtyping import Float

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.sae import Stored


@torch.no_grad()
def response_blocks(
    dictionary: Stored, x_MGD: Float[torch.Tensor, "m g d"], group: Dihedral
) -> Float[torch.Tensor, "s g d"]:
    """B [S, G, D] of a dictionary of vectors of width D; zero for latents that never fire."""
    z_MGS = dictionary.encode(x_MGD)
    x_hat_MGD = dictionary.decode(z_MGS)
    x_hat_MGD = x_hat_MGD - x_hat_MGD.mean(dim=(0, 1))
    blocks_SE = torch.zeros(dictionary.latents, x_MGD[0].numel())
    for h in range(len(group)):
        moved_ME = x_hat_MGD[:, group.table_GG[:, h]].flatten(1)
        blocks_SE += z_MGS[:, h].T @ moved_ME
    total_S = z_MGS.sum(dim=(0, 1))
    blocks_SE /= torch.where(total_S > 0, total_S, 1)[:, None]
    return blocks_SE.view(-1, *x_MGD.shape[1:])
