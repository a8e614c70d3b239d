"""From orbits to active copies to reconstructions, at the cost of the copies that are on.

Written out (`spread`), the copies of all families are an SAE's latents, f G + h. What is chosen
among them then goes through `sparse_product`: nothing dense but the pre-activations, which are
made a block of orbits at a time and have no gradient but at the copies that are on. Reference:
`OrbitCrosscoder.encode` and `decode`, under autograd.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .active import Active
from .orbit import OrbitCrosscoder
from .orbit_product import spread
from .sparse_product import at_entries, decode, entries_of_rows, largest

BLOCK = 2**21  # pre-activations at a time


def orbit_active(
    crosscoder: OrbitCrosscoder,
    x_NE: Float[Tensor, "n e"],
    k: int,
    families: Int[Tensor, " l"] | None = None,
    rounds: int = 1,
) -> Active:
    """The k families whose best pose is largest (or the k largest copies), of all families or
    of some, on orbits side by side, E = G D; k / rounds a round. Indices are f G + h, f among
    those looked at."""
    W_enc: Tensor = crosscoder.W_enc
    W_dec: Tensor = crosscoder.W_dec
    bias_F = crosscoder.bias()
    if families is not None:
        W_enc, W_dec, bias_F = W_enc[families], W_dec[families], bias_F[families]
    copies = len(crosscoder.group)
    rows_ES = spread(W_enc, crosscoder.table_HG).T
    bias_S = bias_F.repeat_interleave(copies)
    rows_SE = spread(W_dec, crosscoder.table_HG)
    values, indices = [], []
    x_hat_NE, left_NE = torch.zeros_like(x_NE), x_NE
    for _ in range(rounds):
        if crosscoder.poses == "all":
            values_NK, indices_NK = largest(left_NE, rows_ES, bias_S, k // rounds)
        else:
            values_NK, indices_NK = best_poses(left_NE, rows_ES, bias_S, copies, k // rounds)
        entries = entries_of_rows(indices_NK, len(bias_S))
        pre_M = at_entries(values_NK.flatten(), entries, entries.bags_M, left_NE, rows_ES, bias_S)
        values_M = torch.relu(pre_M)
        x_hat_NE = x_hat_NE + decode(values_M, entries, rows_SE)
        left_NE = x_NE - x_hat_NE
        values.append(values_M.view_as(indices_NK))
        indices.append(indices_NK)
    on_NK, at_NK = torch.cat(values, dim=1), torch.cat(indices, dim=1)
    return Active(on_NK.flatten(), at_NK.flatten(), x_hat_NE[None])


@torch.no_grad()
def best_poses(
    x_NE: Float[Tensor, "n e"],
    W_enc: Float[Tensor, "e s"],
    b_enc: Float[Tensor, " s"],
    copies: int,
    k: int,
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The largest copy of each family, of the k families where that is largest, in no order."""
    values, chosen = [], []
    for part_NE in torch.split(x_NE, max(1, BLOCK // W_enc.shape[1])):
        pre_NFH = torch.addmm(b_enc, part_NE, W_enc).view(len(part_NE), -1, copies)
        best_NF, poses_NF = pre_NFH.max(dim=2)
        top_NK, families_NK = best_NF.topk(k, dim=1, sorted=False)
        values.append(top_NK)
        chosen.append(families_NK * copies + poses_NF.gather(1, families_NK))
    return torch.cat(values).to(x_NE.dtype), torch.cat(chosen)
