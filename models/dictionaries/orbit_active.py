"""From orbits to active copies to reconstructions, at the cost of the copies that are on.

Written out (`spread`), the copies of all families are an SAE's latents, f G + h. What is chosen
among them then goes through `sparse_product`: nothing dense but the pre-activations, which are
made a block of orbits at a time and have no gradient but at the copies that are on. Reference:
`OrbitCrosscoder.encode` and `decode`, under autograd.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.dihedral import Dihedral

from .active import Active
from .orbit import OrbitCrosscoder
from .orbit_product import spread
from .orbit_waves import PAY, copies_of, correlated, waves_of
from .sparse_product import at_entries, decode, entries_of_rows, largest

BLOCK = 2**21  # pre-activations at a time

AllCopies = Callable[[Tensor], Tensor]  # orbits [n, G D] -> pre-activations [n, F, G]


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
    group, copies = crosscoder.group, len(crosscoder.group)
    rows_ES = spread(W_enc, crosscoder.table_HG).T
    bias_S = bias_F.repeat_interleave(copies)
    rows_SE = spread(W_dec, crosscoder.table_HG)
    if len(bias_S) >= PAY and crosscoder.side == "right":
        all_copies = through_waves(W_enc.detach(), bias_F.detach(), group)
    else:
        all_copies = through_rows(rows_ES, bias_S, copies)
    values, indices = [], []
    x_hat_NE, left_NE = torch.zeros_like(x_NE), x_NE
    for _ in range(rounds):
        if crosscoder.poses == "all":
            values_NK, indices_NK = largest(left_NE, rows_ES, bias_S, k // rounds)
        else:
            values_NK, indices_NK = best_poses(left_NE, all_copies, len(bias_S), k // rounds)
        entries = entries_of_rows(indices_NK, len(bias_S))
        pre_M = at_entries(values_NK.flatten(), entries, entries.bags_M, left_NE, rows_ES, bias_S)
        values_M = torch.relu(pre_M)
        x_hat_NE = x_hat_NE + decode(values_M, entries, rows_SE)
        left_NE = x_NE - x_hat_NE
        values.append(values_M.view_as(indices_NK))
        indices.append(indices_NK)
    on_NK, at_NK = torch.cat(values, dim=1), torch.cat(indices, dim=1)
    return Active(on_NK.flatten(), at_NK.flatten(), x_hat_NE[None])


def through_rows(
    rows_ES: Float[Tensor, "e s"], bias_S: Float[Tensor, " s"], copies: int
) -> AllCopies:
    """One product with all copies written out: the square of G."""

    def all_copies(part_NE: Float[Tensor, "n e"]) -> Float[Tensor, "n f g"]:
        return torch.addmm(bias_S, part_NE, rows_ES).view(len(part_NE), -1, copies)

    return all_copies


def through_waves(
    W_FGD: Float[Tensor, "f g d"], bias_F: Float[Tensor, " f"], group: Dihedral
) -> AllCopies:
    """The same through Fourier transforms over the turns: see `orbit_waves`."""
    copies_WSE = copies_of(W_FGD, group)

    def all_copies(part_NE: Float[Tensor, "n e"]) -> Float[Tensor, "n f g"]:
        waves_WNE = waves_of(part_NE.view(len(part_NE), len(group), -1), group)
        return correlated(waves_WNE, copies_WSE, group) + bias_F[:, None]

    return all_copies


@torch.no_grad()
def best_poses(
    x_NE: Float[Tensor, "n e"], all_copies: AllCopies, latents: int, k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The largest copy of each family, of the k families where that is largest, in no order."""
    values, chosen = [], []
    for part_NE in torch.split(x_NE, max(1, BLOCK // latents)):
        pre_NFH = all_copies(part_NE)
        best_NF, poses_NF = pre_NFH.max(dim=2)
        top_NK, families_NK = best_NF.topk(k, dim=1, sorted=False)
        values.append(top_NK)
        chosen.append(families_NK * pre_NFH.shape[2] + poses_NF.gather(1, families_NK))
    return torch.cat(values).to(x_NE.dtype), torch.cat(chosen)
