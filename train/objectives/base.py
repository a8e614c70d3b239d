"""What an objective is: it builds a dictionary, and gives the loss of a batch.

Vectors come scaled by one number (a site) so that E||x||^2 = D; `progress` runs from 0 to 1. A
new objective is a dataclass with `start` and `loss`, a line in `objectives.OBJECTIVES`, and a
recipe.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.models.dictionaries.sae import Dictionary

Trained = TypeVar("Trained", bound=Dictionary)


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, and what the loop counts.

    `active` is the mean number of latents on. `least` is the smallest (weighted) value of a
    latent that is on, where the objective keeps a threshold of it; infinite where none is on.
    """

    total: Float[Tensor, ""]
    x_hat_ND: Float[Tensor, "n d"]
    fired_S: Bool[Tensor, " s"]
    active: Float[Tensor, ""]
    least: Float[Tensor, ""] | None = None


class Objective(ABC, Generic[Trained]):
    """How a dictionary starts, and what makes it better."""

    @property
    def unit_rows(self) -> bool:
        """Whether the rows of W_dec are held at norm 1."""
        return False

    @property
    def new_share(self) -> float:
        """Length of the encoder of a latent that starts anew, over that of the living ones: .2
        (Bricken et al. 2023), and 1 where latents compete and a short one would never be on."""
        return 0.2

    @abstractmethod
    def start(
        self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator
    ) -> Trained:
        """The dictionary before the first step; `x_ND` is a batch of what it will see."""

    @abstractmethod
    def loss(
        self,
        sae: Trained,
        x_ND: Float[Tensor, "n d"],
        dead_S: Bool[Tensor, " s"],
        progress: float,
    ) -> Loss:
        """The loss of a batch; `dead_S` marks the latents that have not fired for long."""

    def settle(self, sae: Trained, loss: Loss) -> None:
        """What must hold after a step, beside unit rows: signs, thresholds."""


def warmed(weight: float, share: float, progress: float) -> float:
    """A weight that rises from zero over the first `share` of the steps."""
    return weight * min(1.0, progress / share if share else 1.0)


def annealed(k: int, start: int, share: float, progress: float) -> int:
    """A k that falls from `start` over the first `share` of the steps.

    Source: He et al., Llama Scope (2410.20526), section 3.2 (from D, over the first 10 %).
    """
    left = max(0.0, 1 - progress / share) if share else 0.0
    return k + round(max(0, start - k) * left)
