"""The gated SAE, which decides separately whether a latent is active and how strongly."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .sae import SAE, Dictionary
from .sparsity import Sparsity


@final
class Gated(Dictionary):
    """Gated SAE: a gate and a magnitude path that share W_enc up to one factor per latent.

        gate  = (x - b_dec) W_enc + b_gate
        z     = 1[gate > 0] ReLU(exp(r_mag) (x - b_dec) W_enc + b_mag)
        x_hat = z W_dec + b_dec

    W_enc [D, S], b_gate, r_mag and b_mag [S]. Source: Rajamanoharan et al., Improving dictionary
    learning with gated sparse autoencoders (2404.16014), eqs. 6 and 7. A finished run is stored
    as the equivalent JumpReLU SAE, see `plain`.
    """

    def __init__(self, width: int, latents: int) -> None:
        super().__init__(width, latents)
        self.W_enc = nn.Parameter(torch.zeros(width, latents))
        self.b_gate = nn.Parameter(torch.zeros(latents))
        self.r_mag = nn.Parameter(torch.zeros(latents))
        self.b_mag = nn.Parameter(torch.zeros(latents))

    def paths(
        self, x_ND: Float[Tensor, "*n d"]
    ) -> tuple[Float[Tensor, "*n s"], Float[Tensor, "*n s"]]:
        """The pre-activations of the gate and of the magnitude, each [n, S]."""
        shared_NS = (x_ND - self.b_dec) @ self.W_enc
        return shared_NS + self.b_gate, self.r_mag.exp() * shared_NS + self.b_mag

    def encode(self, x_ND: Float[Tensor, "*n d"]) -> Float[Tensor, "*n s"]:
        """z = 1[gate > 0] ReLU(magnitude)."""
        gate_NS, magnitude_NS = self.paths(x_ND)
        return torch.where(gate_NS > 0, torch.relu(magnitude_NS), 0)

    @torch.no_grad()
    def plain(self) -> SAE:
        """The equivalent JumpReLU SAE, with the magnitude path as its encoder.

            gate > 0  <=>  magnitude > threshold,   threshold = b_mag - exp(r_mag) b_gate

        Negative thresholds become zero, since z is non-negative. Source: the same paper,
        appendix E (a gated SAE with shared weights is a JumpReLU SAE).
        """
        sae = SAE(self.width, self.latents, Sparsity("jumprelu"), pre_bias=True)
        sae = sae.to(self.W_dec.device, self.W_dec.dtype)
        factor_S = self.r_mag.exp()
        sae.load_state_dict(
            {
                "W_enc": self.W_enc * factor_S,
                "b_enc": self.b_mag,
                "W_dec": self.W_dec,
                "b_dec": self.b_dec,
                "threshold": (self.b_mag - factor_S * self.b_gate).clamp_min(0),
            }
        )
        return sae
