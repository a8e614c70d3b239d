"""How many features a code uses, and how well a dictionary explains vectors: sums over batches.

    effective features  F = exp(H(p)), p_i = sum |z_i| / sum_j sum |z_j|, H the entropy in nats

F is 1 where one feature has all activity and S where S have equal shares. Over the latents of a
dictionary that reconstructs well, F / D, D the number of neurons, estimates features per neuron.
Source: the measure of leonardbereska/superposition-measurement.
"""

from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.splice import BLOCK


def effective_features(activity_S: Float[Tensor, " s"]) -> float:
    """exp(H(p)) of non-negative activities; 0 where nothing is active."""
    total = activity_S.double().sum()
    if not total > 0:
        return 0.0
    p_S = activity_S.double() / total
    return float(torch.special.entr(p_S).sum().exp())


@final
class ConditionSums:
    """Sums over vectors under one condition, from which figures of a dictionary follow."""

    def __init__(self, dictionary: SAE, width: int) -> None:
        self._dictionary = dictionary
        self.count = self.on = 0
        self.missed = self.squares = 0.0
        self.sum_D: Float64[Tensor, " d"] = torch.zeros(width, dtype=torch.float64)
        self.latents_S = torch.zeros(dictionary.latents, dtype=torch.float64)
        self.units_D = torch.zeros(width, dtype=torch.float64)

    @torch.no_grad()
    def add(self, x_ND: Float[Tensor, "n d"]) -> None:
        """Count vectors, a block at a time."""
        for some in torch.split(x_ND.float(), BLOCK):
            z_NS = self._dictionary.encode(some)
            x_hat = self._dictionary.decode(z_NS)
            self.count += len(some)
            self.on += int(torch.count_nonzero(z_NS))
            self.missed += float((some.double() - x_hat.double()).square().sum())
            self.squares += float(some.double().square().sum())
            self.sum_D += some.double().sum(dim=0).cpu()
            self.latents_S += z_NS.abs().double().sum(dim=0).cpu()
            self.units_D += some.abs().double().sum(dim=0).cpu()

    def figures(self) -> dict[str, float]:
        """FVU about the mean of these vectors, L0, and effective features of latents and units."""
        variance = self.squares - float(self.sum_D.square().sum()) / max(self.count, 1)
        return {
            "fvu": self.missed / variance if variance > 0 else float("nan"),
            "l0": self.on / max(self.count, 1),
            "effective_latents": effective_features(self.latents_S),
            "effective_units": effective_features(self.units_D),
        }
