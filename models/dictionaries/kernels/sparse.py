"""Forward passes of k-sparse dictionaries with sparse products, and the AuxK reconstruction.

Training uses these functions. Each returns the values and gradients of the function of the same
name in `reference`. Entries of latents that are zero may be missing: they contribute nothing and
have no gradient.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..sae import SAE
from .reference import Active
from .sparse_product import Entries, at_entries, decode, entries_of_rows, largest, largest_of_batch

DENSE_BELOW = 8  # dense products are faster if more than one in eight latents is active


def topk_active(sae: SAE, x_ND: Float[Tensor, "n d"], k: int) -> Active:
    """The k largest latents of each vector. Reference: `reference.topk_active`."""
    centred_ND, bias_S = centred(sae, x_ND)
    values_NK, indices_NK = largest(x_ND, sae.W_enc, bias_S, k)
    entries = entries_of_rows(indices_NK, sae.latents)
    pre_M = at_entries(values_NK.flatten(), entries, entries.bags_M, centred_ND, sae.W_enc, bias_S)
    values_M = torch.relu(pre_M)
    x_hat_ND = decode(values_M, entries, sae.W_dec) + sae.b_dec
    return Active(values_M, entries.latents_M, x_hat_ND[None])


def batch_topk_active(
    sae: SAE, x_ND: Float[Tensor, "n d"], k: int, weight_S: Float[Tensor, " s"] | None = None
) -> Active:
    """The k N largest latents of the batch. Reference: `reference.batch_topk_active`."""
    return matryoshka_active(sae, x_ND, k, (sae.latents,), weight_S)


def matryoshka_active(
    sae: SAE,
    x_ND: Float[Tensor, "n d"],
    k: int,
    prefixes: Sequence[int],
    weight_S: Float[Tensor, " s"] | None = None,
) -> Active:
    """BatchTopK latents, decoded by nested prefixes. Reference: `reference.matryoshka_active`."""
    count = len(x_ND)
    centred_ND, bias_S = centred(sae, x_ND)
    pre_M, indices_M, rows_M = largest_of_batch(x_ND, sae.W_enc, bias_S, k * count, weight_S)
    bags_M = rows_M
    if len(prefixes) > 1:
        ends_P = torch.tensor(prefixes, device=x_ND.device)
        bags_M = torch.bucketize(indices_M, ends_P, right=True) * count + rows_M
        bags_M, order_M = bags_M.sort(stable=True)
        pre_M, indices_M, rows_M = pre_M[order_M], indices_M[order_M], rows_M[order_M]
    entries = Entries(indices_M, bags_M, len(prefixes) * count, sae.latents)
    values_M = torch.relu(at_entries(pre_M, entries, rows_M, centred_ND, sae.W_enc, bias_S))
    groups_PND = decode(values_M, entries, sae.W_dec).view(len(prefixes), count, -1)
    return Active(values_M, indices_M, groups_PND.cumsum(dim=0) + sae.b_dec)


def aux_reconstruction(
    sae: SAE, x_ND: Float[Tensor, "n d"], dead: Int[Tensor, " l"], k: int
) -> Float[Tensor, "n d"]:
    """AuxK reconstruction by the k largest of the dead latents of each vector, without b_dec.

        e_hat = z_dead W_dec[dead],   z_dead = ReLU(TopK(pre[dead]))

    `dead` [l] are latent indices. Only their pre-activations are computed. Dense products are
    used if k is a large fraction of l. Source: Gao et al. (2406.04093), appendix A.2.
    """
    k = min(k, len(dead))
    if len(dead) <= DENSE_BELOW * k:
        z_NL = torch.relu(sae.pre(x_ND, dead))
        if k < len(dead):
            chosen_NK = z_NL.detach().topk(k, dim=1, sorted=False).indices
            z_NL = z_NL * torch.zeros_like(z_NL).scatter_(1, chosen_NK, 1.0)
        return z_NL @ sae.W_dec[dead]
    centred_ND, bias_S = centred(sae, x_ND)
    W_enc, bias_L = sae.W_enc[:, dead], bias_S[dead]
    values_NK, indices_NK = largest(x_ND, W_enc, bias_L, k)
    entries = entries_of_rows(indices_NK, len(dead))
    pre_M = at_entries(values_NK.flatten(), entries, entries.bags_M, centred_ND, W_enc, bias_L)
    return decode(torch.relu(pre_M), entries, sae.W_dec[dead])


def encoder_bias(sae: SAE) -> Float[Tensor, " s"]:
    """The effective encoder bias b_enc - b_dec W_enc, as in `SAE.pre` (b_enc if not `pre_bias`)."""
    return sae.b_enc - sae.b_dec @ sae.W_enc if sae.pre_bias else sae.b_enc


def centred(
    sae: SAE, x_ND: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " s"]]:
    """The arguments x and b_enc of `at_entries`: x - b_dec, and the value of `encoder_bias`.

    Detaching splits the gradients: that of b_dec comes from the bias only, and that of W_enc from
    the centred vectors only. The latter is then a single sum over entries, (x - b_dec)^T g, which
    avoids an outer product of the size of W_enc.
    """
    if not sae.pre_bias:
        return x_ND, sae.b_enc
    return x_ND - sae.b_dec.detach(), sae.b_enc - sae.b_dec @ sae.W_enc.detach()
