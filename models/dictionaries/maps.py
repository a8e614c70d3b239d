"""A dictionary of a convolutional site, run on whole maps as a 1x1 convolution."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .sae import SAE


def encode_maps(sae: SAE, acts_BDHW: Float[Tensor, "b d h w"]) -> Float[Tensor, "b s h w"]:
    """Latents at every place of a map: `sae.encode` of each of its vectors, without moving
    channels last and back. The weights are W_enc as S filters of 1x1."""
    bias_S = sae.b_enc - sae.b_dec @ sae.W_enc if sae.pre_bias else sae.b_enc
    pre_BSHW = functional.conv2d(acts_BDHW, sae.W_enc.T[:, :, None, None], bias_S)
    z_BHWS = sae.sparsity(pre_BSHW.movedim(1, -1), sae.threshold)
    return z_BHWS.movedim(-1, 1)


def decode_maps(sae: SAE, z_BSHW: Float[Tensor, "b s h w"]) -> Float[Tensor, "b d h w"]:
    """Reconstructed maps: `sae.decode` of the latents at every place."""
    return functional.conv2d(z_BSHW, sae.W_dec.T[:, :, None, None], sae.b_dec)


def reconstruct_maps(sae: SAE, acts_BDHW: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
    """x_hat of every vector of a map."""
    return decode_maps(sae, encode_maps(sae, acts_BDHW))
