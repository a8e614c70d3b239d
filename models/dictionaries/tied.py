"""The tied autoencoder: one matrix, read forwards and backwards."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .sae import SAE, Dictionary
from .sparsity import Sparsity


@final
class Tied(Dictionary):
    """z = ReLU(x W_dec^T + b_enc), x_hat = z W_dec: rows of W_dec are of norm 1, and b_dec
    stays zero.

    Source: Cunningham et al., Sparse autoencoders find highly interpretable features
    (2309.08600), eqs. 1 and 2 (M is our W_dec).
    """

    def __init__(self, width: int, latents: int) -> None:
        super().__init__(width, latents)
        self.b_enc = nn.Parameter(torch.zeros(latents))
        self.b_dec.requires_grad_(False)

    def encode(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        """z = ReLU(x W_dec^T + b_enc)."""
        return torch.relu(functional.linear(x_ND, self.W_dec, self.b_enc))

    @torch.no_grad()
    def plain(self) -> SAE:
        """With the transposed matrix written out as W_enc."""
        sae = SAE(self.width, self.latents, Sparsity("relu"), pre_bias=False)
        sae = sae.to(self.W_dec.device, self.W_dec.dtype)
        sae.load_state_dict({**self.state_dict(), "W_enc": self.W_dec.T})
        return sae
