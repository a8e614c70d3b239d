"""The tied SAE, whose encoder is the transposed decoder."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from .sae import SAE, Dictionary
from .sparsity import Sparsity


@final
class Tied(Dictionary):
    """SAE with tied weights and no decoder bias.

        z     = ReLU(x W_dec^T + b_enc)
        x_hat = z W_dec

    W_dec [S, D] has rows of norm 1 and b_enc is [S]. b_dec [D] is kept for the common interface,
    but stays zero. Source: Cunningham et al., Sparse autoencoders find highly interpretable
    features in language models (2309.08600), eqs. 1 and 2, where W_dec is called M.
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
        """The equivalent ReLU SAE with W_enc = W_dec^T."""
        sae = SAE(self.width, self.latents, Sparsity("relu"), pre_bias=False)
        sae = sae.to(self.W_dec.device, self.W_dec.dtype)
        sae.load_state_dict({**self.state_dict(), "W_enc": self.W_dec.T})
        return sae
