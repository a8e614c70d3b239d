"""From vectors to active latents to reconstructions: what every k-sparse objective does.

Three functions, one a choice of latents: `topk_active`, `batch_topk_active` and
`matryoshka_active`. They are the reference, and the seam: a faster path takes the place of one of
them as a whole, and is held to the same values and gradients.

Which latents are chosen is not differentiated; the values at the chosen places are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..sae import SAE
from ..sparsity import topk_entries


@dataclass(frozen=True)
class Active:
    """The latents that are on in a batch of N vectors, and what they add up to.

    Entry m says that latent indices_M[m] is on by values_M[m] (zero where fewer than k were
    positive, in which case it is not on). Entries of one vector follow each other; TopK's are
    values_NK and indices_NK, flattened. `x_hats_PND` are the reconstructions by P nested
    prefixes of the dictionary, the last of them by the whole; P is 1 outside Matryoshka.
    """

    values_M: Float[Tensor, " m"]
    indices_M: Int[Tensor, " m"]
    x_hats_PND: Float[Tensor, "p n d"]

    @property
    def x_hat_ND(self) -> Float[Tensor, "n d"]:
        """The reconstruction by the whole dictionary."""
        return self.x_hats_PND[-1]


def topk_active(sae: SAE, x_ND: Float[Tensor, "n d"], k: int) -> Active:
    """The k largest latents of every vector: z = ReLU(TopK(pre)), x_hat = z W_dec + b_dec.

    Source: Gao et al. (2406.04093), eq. 3.
    """
    pre_NS = sae.pre(x_ND)
    values_NK, indices_NK = topk_entries(pre_NS, k)
    x_hat_ND = sae.combine(values_NK, indices_NK) + sae.b_dec
    return Active(values_NK.reshape(-1), indices_NK.reshape(-1), x_hat_ND[None])


def batch_topk_active(
    sae: SAE, x_ND: Float[Tensor, "n d"], k: int, weight_S: Float[Tensor, " s"] | None = None
) -> Active:
    """The k N largest latents of the batch: z = ReLU(BatchTopK(pre)), x_hat = z W_dec + b_dec.

    They are ranked by weight_i ReLU(pre_i); the weights (1 where none are given) are the sum
    over sites of ||d_i|| in a crosscoder. Source: Bussmann et al., BatchTopK (2412.06410), eq.
    6; Minder et al. (2504.02922), section 2 for the weights.
    """
    return matryoshka_active(sae, x_ND, k, (sae.latents,), weight_S)


def matryoshka_active(
    sae: SAE,
    x_ND: Float[Tensor, "n d"],
    k: int,
    prefixes: Sequence[int],
    weight_S: Float[Tensor, " s"] | None = None,
) -> Active:
    """One BatchTopK code, read by nested prefixes of the dictionary.

        x_hats[p] = sum_{i < prefixes[p]} z_i d_i + b_dec,   prefixes rising, the last one S

    Source: Bussmann et al., Matryoshka SAEs (2503.17547), eq. 5.
    """
    pre_NS = sae.pre(x_ND)
    count = len(x_ND)
    flat_M = _largest(pre_NS.detach(), k * count, weight_S)
    indices_M, rows_M = flat_M % sae.latents, flat_M // sae.latents
    ends_P = torch.tensor(prefixes, device=x_ND.device)
    # one bag a group of latents and vector: all groups are summed in one pass over the entries
    bags_M = torch.bucketize(indices_M, ends_P, right=True) * count + rows_M
    order_M = bags_M.argsort(stable=True)
    indices_M, rows_M, bags_M = indices_M[order_M], rows_M[order_M], bags_M[order_M]
    values_M = torch.relu(pre_NS[rows_M, indices_M])
    bags = torch.arange(len(prefixes) * count, device=x_ND.device)
    groups_BD = sae.combine(values_M, indices_M, torch.searchsorted(bags_M, bags))
    x_hats_PND = groups_BD.reshape(len(prefixes), count, -1).cumsum(dim=0) + sae.b_dec
    return Active(values_M, indices_M, x_hats_PND)


def _largest(
    pre_NS: Float[Tensor, "n s"], count: int, weight_S: Float[Tensor, " s"] | None
) -> Int[Tensor, " m"]:
    """The flat places of the `count` largest ReLU(pre) (times their weights), in order."""
    score_NS = torch.relu(pre_NS)
    if weight_S is not None:
        score_NS = score_NS * weight_S.detach()
    return score_NS.flatten().topk(count, sorted=False).indices.sort().values
