"""The yardstick of a training step: the straightforward dense loop in PyTorch."""

from collections.abc import Iterator
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from tendril.models.dictionaries.sae import SAE
from tendril.train.config import TrainConfig
from tendril.train.optim import BETAS, EPS


@final
class PlainTopK(nn.Module):
    """A TopK autoencoder of two dense linear layers."""

    def __init__(self, sae: SAE, k: int) -> None:
        super().__init__()
        self.k = k
        self.encoder = nn.Linear(sae.width, sae.latents)
        self.decoder = nn.Linear(sae.latents, sae.width, bias=False)
        self.b_dec = nn.Parameter(sae.b_dec.detach().clone())
        with torch.no_grad():
            self.encoder.weight.copy_(sae.W_enc.T)
            self.encoder.bias.copy_(sae.b_enc)
            self.decoder.weight.copy_(sae.W_dec.T)

    def forward(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The reconstruction x_hat, computed with all S latents."""
        pre_NS = self.encoder(x_ND - self.b_dec)
        values_NK, indices_NK = pre_NS.topk(self.k, dim=-1)
        z_NS = torch.zeros_like(pre_NS).scatter(-1, indices_NK, functional.relu(values_NK))
        x_hat_ND: Tensor = self.decoder(z_NS) + self.b_dec
        return x_hat_ND


@final
class PlainLoop:
    """Training of `PlainTopK`: autograd, torch.optim.Adam, clipped gradients, unit decoder rows."""

    def __init__(self, sae: SAE, config: TrainConfig) -> None:
        self._model = PlainTopK(sae, config.k).to(sae.b_dec.device)
        self._clip = config.clip
        self._adam = torch.optim.Adam(self._model.parameters(), lr=config.lr, betas=BETAS, eps=EPS)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights."""
        return self._model.parameters()

    def step(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """Take one step; returns the loss before it."""
        model = self._model
        loss: Tensor = (x_ND - model(x_ND)).pow(2).sum(dim=1).mean() / x_ND.shape[1]
        self._adam.zero_grad()
        torch.autograd.backward(loss)
        weight = model.decoder.weight
        with torch.no_grad():
            assert weight.grad is not None
            weight.grad -= (weight.grad * weight).sum(dim=0, keepdim=True) * weight
        nn.utils.clip_grad_norm_(model.parameters(), self._clip)
        self._adam.step()
        with torch.no_grad():
            weight /= weight.norm(dim=0, keepdim=True)
        return loss.detach()
