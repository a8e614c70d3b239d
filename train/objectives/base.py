"""What an objective is: it initialises a dictionary, and computes the loss of a batch.

Vectors come scaled by one number for each site, so that E||x||^2 = D, and centred before that if
the site's mean is large (see `outliers.Channels.off_centre`). `progress` runs from 0 to 1.

Papers and other programs scale vectors in other ways, or not at all, and weigh the terms of a loss
by these scales, so that a weight taken from elsewhere means something else here. Each objective
says how it differs from its paper and from OpenAI's sparse_autoencoder, dictionary_learning and
SAELens (as of 2025).

A new objective is a dataclass with `start` and `loss`, a function that makes it from a config, a
line in `config.OBJECTIVES`, and a recipe.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Generic, TypeVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.data.group.dihedral import Dihedral
from tendril.models.dictionaries.sae import SAE, Dictionary

from ..config import OBJECTIVES, TrainConfig, check_choice

Trained = TypeVar("Trained", bound=Dictionary)


@final
@dataclass(frozen=True)
class Loss:
    """The loss of a batch, and what the loop counts.

    `active` is the mean number of active latents. `least` is the smallest (weighted) value of an
    active latent, for objectives that keep a threshold of it; infinite if none is active.
    """

    total: Float[Tensor, ""]
    x_hat_ND: Float[Tensor, "n d"]
    fired_S: Bool[Tensor, " s"]
    active: Float[Tensor, ""]
    least: Float[Tensor, ""] | None = None


class Objective(ABC, Generic[Trained]):
    """How a dictionary is initialised, and what is minimised."""

    @property
    def unit_rows(self) -> bool:
        """True if the rows of W_dec are held at norm 1."""
        return False

    @property
    def new_norm(self) -> float:
        """Encoder norm of a latent that is initialised again, as a fraction of the mean norm of the
        living ones: 0.2 (Bricken et al. 2023), and 1 where latents compete, since a short one would
        never be active."""
        return 0.2

    @abstractmethod
    def start(
        self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator
    ) -> Trained:
        """The dictionary before the first step. `x_ND` is a batch of the vectors to come."""

    @abstractmethod
    def loss(
        self,
        sae: Trained,
        x_ND: Float[Tensor, "n d"],
        dead_S: Bool[Tensor, " s"],
        progress: float,
    ) -> Loss:
        """The loss of a batch. `dead_S` marks the latents that have not fired for long."""

    def settle(self, sae: Trained, loss: Loss) -> None:
        """Restore after a step what must hold besides unit rows: signs, thresholds."""


@final
@dataclass(frozen=True)
class Shape:
    """The vectors that an objective is for: their width, the widths of the sites (or elements) that
    a crosscoder joins, and the group whose orbits they are."""

    width: int
    blocks: tuple[int, ...] = ()
    group: Dihedral | None = None


Factory = Callable[[TrainConfig, Shape], Objective[Any]]


def make_objective(
    config: TrainConfig,
    width: int,
    blocks: tuple[int, ...] = (),
    group: Dihedral | None = None,
) -> Objective[Any]:
    """The objective of a config, for vectors of a shape (see `Shape`). Imports its module.

    Raises ConfigError for a name that is no objective, e.g. that of a baseline.
    """
    trained = [name for name, entry in OBJECTIVES.items() if entry.factory]
    check_choice("--objective", config.objective, trained)
    module, _, name = OBJECTIVES[config.objective].factory.partition(":")
    factory: Factory = getattr(import_module(f".{module}", __package__), name)
    return factory(config, Shape(width, blocks, group))


def squared(error_ND: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """||e||^2 of every vector."""
    return error_ND.square().sum(dim=1)


def warmed(weight: float, fraction: float, progress: float) -> float:
    """A weight that rises from zero over the first `fraction` of the steps."""
    return weight * min(1.0, progress / fraction if fraction else 1.0)


def annealed(k: int, start: int, fraction: float, progress: float) -> int:
    """A k that falls from `start` over the first `fraction` of the steps.

    Source: He et al., Llama Scope (2410.20526), section 3.2 (from D, over the first 10 %).
    """
    left = max(0.0, 1 - progress / fraction) if fraction else 0.0
    return k + round(max(0, start - k) * left)


@torch.no_grad()
def only_first(sae: SAE, blocks: tuple[int, ...], sources: str) -> None:
    """Set W_enc to zero for all sites but the first, if the first is the only source."""
    if sources == "one" and blocks:
        sae.W_enc[blocks[0] :] = 0


@lru_cache(maxsize=1)  # all runs of a sweep start from one batch
def geometric_median(x_ND: Float[Tensor, "n d"], iterations: int = 100) -> Float[Tensor, " d"]:
    """The point with the smallest sum of distances to the vectors, by Weiszfeld's iteration m <-
    (sum_n x_n / ||x_n - m||) / (sum_n 1 / ||x_n - m||), until it moves by less than 1e-5 of its
    mean distance to the vectors."""
    median_D = x_ND.mean(dim=0)
    for _ in range(iterations):
        distance_N = (x_ND - median_D).norm(dim=1).clamp_min(1e-8)
        weight_N = 1 / distance_N
        moved_D = (weight_N @ x_ND) / weight_N.sum()
        small = (moved_D - median_D).norm() <= 1e-5 * distance_N.mean()
        median_D = moved_D
        if small:
            break
    return median_D


def middle(x_ND: Float[Tensor, "n d"], bias: str) -> Float[Tensor, " d"]:
    """The initial b_dec: the geometric median of a batch, its mean, or zero (also for "none")."""
    if bias == "median":
        return geometric_median(x_ND)
    return x_ND.mean(dim=0) if bias == "mean" else torch.zeros_like(x_ND[0])
