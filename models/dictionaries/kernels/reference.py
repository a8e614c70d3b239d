"""Reference forward passes of k-sparse dictionaries: active latents and reconstructions.

There is one function for each way to choose the active latents: `topk_active`,
`batch_topk_active` and `matryoshka_active`. `sparse` has faster versions with the same signatures,
values and gradients. Gradients flow through the values of the active latents; their choice is
treated as constant.
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
    """The active latents of a batch of N vectors in sparse form, and the reconstructions.

    Entry m is latent indices_M[m] with value values_M[m]; a value of zero means inactive, if
    fewer than k pre-activations were positive. With TopK the entries are [N, K], flattened.
    `x_hats_PND` are the reconstructions by P nested prefixes of the dictionary, of which the
    last is the whole dictionary. P is 1 except for Matryoshka.
    """

    values_M: Float[Tensor, " m"]
    indices_M: Int[Tensor, " m"]
    x_hats_PND: Float[Tensor, "p n d"]

    @property
    def x_hat_ND(self) -> Float[Tensor, "n d"]:
        """The reconstruction by the whole dictionary, [n, D]."""
        return self.x_hats_PND[-1]


def topk_active(sae: SAE, x_ND: Float[Tensor, "n d"], k: int) -> Active:
    """The k largest latents of each vector: z = ReLU(TopK(pre)), x_hat = z W_dec + b_dec.

    Source: Gao et al. (2406.04093), eq. 3; `sparsity.topk` explains the ReLU.
    """
    pre_NS = sae.pre(x_ND)
    values_NK, indices_NK = topk_entries(pre_NS, k)
    x_hat_ND = sae.combine(values_NK, indices_NK) + sae.b_dec
    return Active(values_NK.reshape(-1), indices_NK.reshape(-1), x_hat_ND[None])


def batch_topk_active(
    sae: SAE, x_ND: Float[Tensor, "n d"], k: int, weight_S: Float[Tensor, " s"] | None = None
) -> Active:
    """The k N largest latents of the batch: z = ReLU(BatchTopK(pre)), x_hat = z W_dec + b_dec.

    Latents are ranked by weight_i ReLU(pre_i). The weights default to 1; in a crosscoder they are
    `crosscoder.weights`, e.g. sum_g ||d_i,g||.

    Source: Bussmann et al., BatchTopK sparse autoencoders (2412.06410), eq. 6; Minder et al.
    (2504.02922), section 2, for the weights.
    """
    return matryoshka_active(sae, x_ND, k, (sae.latents,), weight_S)


def matryoshka_active(
    sae: SAE,
    x_ND: Float[Tensor, "n d"],
    k: int,
    prefixes: Sequence[int],
    weight_S: Float[Tensor, " s"] | None = None,
) -> Active:
    """BatchTopK latents, decoded by nested prefixes of the dictionary.

        x_hats[p] = sum_{i < prefixes[p]} z_i d_i + b_dec

    `prefixes` are increasing, and the last one is S. The latents are chosen once, for all
    prefixes together. Source: Bussmann et al., Learning multi-level features with Matryoshka
    SAEs (2503.17547), eq. 5.
    """
    pre_NS = sae.pre(x_ND)
    count = len(x_ND)
    flat_M = _largest(pre_NS.detach(), k * count, weight_S)
    indices_M, rows_M = flat_M % sae.latents, flat_M // sae.latents
    ends_P = torch.tensor(prefixes, device=x_ND.device)
    # one bag for each (group of latents, vector), so that a single pass sums all groups
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
    """The flat indices of the `count` largest weight * ReLU(pre), ascending."""
    score_NS = torch.relu(pre_NS)
    if weight_S is not None:
        score_NS = score_NS * weight_S.detach()
    return score_NS.flatten().topk(count, sorted=False).indices.sort().values
