"""From a dictionary of scaled vectors to one of raw vectors: the same function of both."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .sae import SAE, Dictionary, Stored


@torch.no_grad()
def folded(dictionary: Dictionary, scale: float | Float[Tensor, " d"]) -> Stored:
    """A dictionary trained on scale * x, as one that takes x itself.

    `scale` is one number, or one for each dimension (a crosscoder has one a site; of orbits
    every element has the same); s is its mean. Sparsity functions are homogeneous, so with
    one number only biases and thresholds are divided:

        encode_folded(x) = encode(scale x) / s,  decode_folded(z) = decode(s z) / scale

    Latents come out in the units of x. Where each latent is decided by itself, its scale is
    free too and is set so that d_i has norm 1: z_i becomes z_i ||d_i||, W_enc, b_enc and
    threshold are multiplied by ||d_i|| and row i of W_dec is divided by it. (Where latents
    compete, as in TopK, that would change the winners, and rows are kept at norm 1 while
    training.)
    """
    raw = dictionary.plain()
    scale_D = torch.as_tensor(scale, dtype=raw.b_dec.dtype, device=raw.b_dec.device)
    scale_D = scale_D.expand(math.prod(raw.row_shape))[: raw.width]
    mean = scale_D.mean()
    raw.W_enc.mul_((scale_D / mean)[:, None] if isinstance(raw, SAE) else scale_D / mean)
    raw.b_enc.div_(mean)
    raw.W_dec.mul_(mean / scale_D)
    raw.b_dec.div_(scale_D)
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
