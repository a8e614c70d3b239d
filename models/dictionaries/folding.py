"""Fold the scaling of activations into a dictionary's weights."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .sae import SAE, Dictionary, Stored


@torch.no_grad()
def folded(
    dictionary: Dictionary,
    scale: float | Float[Tensor, " d"],
    centre: Float[Tensor, " d"] | None = None,
) -> Stored:
    """Convert a dictionary trained on scale (x - centre) into an equivalent one that takes x.

        encode_folded(x) = encode(scale (x - centre)) / s
        decode_folded(z) = decode(s z) / scale + centre

    `centre` [D] is zero by default; of orbits it is the same for all elements. `scale` is one
    number, or one per dimension [D] (the same within each site of a crosscoder), and s is its mean.
    Latents are in the units of x. Sparsity functions are homogeneous, so with a single number only
    biases and thresholds change.

    If latents do not compete (ReLU, JumpReLU), each direction d_i is also normalised: W_enc,
    b_enc and threshold of latent i, and so z_i, are multiplied by ||d_i||, and row i of W_dec is
    divided by it. With TopK this would change which latents are chosen; its rows have norm 1 by
    training.

    SAELens differs: its `fold_activation_norm_scaling_factor` leaves z in the units of scale * x.
    Its `fold_W_dec_norm` is the same normalisation. Returns a copy in eval mode, without
    gradients.
    """
    raw = dictionary.plain()
    scale_D = torch.as_tensor(scale, dtype=raw.b_dec.dtype, device=raw.b_dec.device)
    scale_D = scale_D.expand(math.prod(raw.row_shape))[: raw.width]
    mean = scale_D.mean()
    raw.W_enc.mul_((scale_D / mean)[:, None] if isinstance(raw, SAE) else scale_D / mean)
    raw.b_enc.div_(mean)
    raw.W_dec.mul_(mean / scale_D)
    raw.b_dec.div_(scale_D)
    if centre is not None:
        centre_D = centre.to(raw.b_dec)[: raw.width]
        raw.b_dec.add_(centre_D)
        if isinstance(raw, SAE) and not raw.pre_bias:  # others subtract b_dec themselves
            raw.b_enc.copy_(raw.b_enc.double() - centre_D.double() @ raw.W_enc.double())
    if isinstance(raw, SAE):
        if raw.threshold is not None:
            raw.threshold.div_(mean)
        if raw.sparsity.elementwise:
            _unit_rows(raw)
    return raw.eval().requires_grad_(False)


def _unit_rows(sae: SAE) -> None:
    length_S = sae.W_dec.norm(dim=1)
    norm_S = torch.where(length_S > 0, length_S, 1)
    sae.W_enc.mul_(norm_S)
    sae.b_enc.mul_(norm_S)
    sae.W_dec.div_(norm_S[:, None])
    if sae.threshold is not None:
        sae.threshold.mul_(norm_S)
