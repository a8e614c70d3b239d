"""Transform blocks of a dictionary that knows no group, from its own responses over orbits.

An SAE of single elements has one direction a latent, and nothing that says how that moves under
the group. What does is the latents that are on at the other elements of the orbits in which it is
on: with x[g] = a(T_g p) and z_s its responses, block g of latent s is

    B_s[g] = sum_n,h z_s(x_n[h]) (x_hat(x_n[g h]) - m) / sum_n,h z_s(x_n[h])

over orbits n and elements h, since x[g h] is block g of the orbit of T_h p; m is the mean
reconstruction. The blocks are sums of decoder rows, weighed by how often their latents follow s.
So the same study reads an SAE and a group crosscoder.
"""

import torch
from jaxtyping import Float

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.sae import Stored


@torch.no_grad()
def response_blocks(
    dictionary: Stored, x_MGD: Float[torch.Tensor, "m g d"], group: Dihedral
) -> Float[torch.Tensor, "s g d"]:
    """B [S, G, D] of a dictionary for vectors of width D; zero for latents that never fire."""
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
