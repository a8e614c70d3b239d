"""What is minimised: an objective builds its dictionary and gives the loss of a batch.

Vectors come scaled by one number so that E||x||^2 = D; `progress` runs from 0 to 1. A new
objective is a dataclass with these two methods, and a recipe.
"""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.dictionaries.active import Active, topk_active
from models.dictionaries.sae import SAE, initialised
from models.dictionaries.sparsity import Sparsity, topk_entries

from .config import TrainConfig
from .optim import geometric_median


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, and what the loop counts."""

    total: Float[Tensor, ""]
    x_hat_ND: Float[Tensor, "n d"]
    fired_S: Bool[Tensor, " s"]
    active: Float[Tensor, ""]


@runtime_checkable
class Objective(Protocol):
    """How a dictionary starts, and what makes it better."""

    @property
    def unit_rows(self) -> bool:
        """Whether the rows of W_dec are held at norm 1."""
        ...

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """The dictionary before the first step; `x_ND` is a batch of what it will see."""
        ...

    def loss(
        self, sae: SAE, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """The loss of a batch; `dead_S` marks the latents that have not fired for long."""
        ...


@final
@dataclass(frozen=True)
class TopK:
    """TopK with AuxK.

        z = ReLU(TopK((x - b_dec) W_enc + b_enc)),  x_hat = z W_dec + b_dec
        L = (||x - x_hat||^2 + aux_weight ||e - e_hat||^2) / D,   mean over the batch

    where e = x - x_hat, taken as it is (no gradient), and e_hat = z_aux W_dec with z_aux the
    aux_k largest pre-activations of the *dead* latents. Rows of W_dec have norm 1, W_enc
    starts as W_dec^T, b_dec as the geometric median. With E||x||^2 = D the first term is the
    normalised squared error.

    Source: Gao et al., Scaling and evaluating sparse autoencoders (2406.04093), eq. 3,
    section 2.4 and appendices A.1, A.2 (aux_weight 1/32, aux_k about D/2).
    """

    k: int
    aux_k: int
    aux_weight: float
    bias: str
    unit_rows: bool = True

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """Unit rows in random directions, W_enc their transpose, b_dec in the middle."""
        sae = SAE(x_ND.shape[1], latents, Sparsity("topk", self.k), pre_bias=True)
        middle = {"median": geometric_median, "mean": lambda x_ND: x_ND.mean(dim=0)}
        bias_D = middle[self.bias](x_ND) if self.bias in middle else None
        return initialised(sae, generator, bias_D=bias_D)

    def loss(
        self, sae: SAE, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        active = topk_active(sae, x_ND, self.k)
        error_ND = x_ND - active.x_hat_ND
        total = error_ND.square().sum(dim=1).mean()
        total = total + self.aux_weight * aux_loss(sae, x_ND, error_ND, dead_S, self.aux_k)
        return counted(total / sae.width, active, dead_S)


@final
@dataclass(frozen=True)
class ReluL1:
    """ReLU with an L1 penalty weighted by the norms of the directions.

        z = ReLU(x W_enc + b_enc),  x_hat = z W_dec + b_dec
        L = ||x - x_hat||^2 + lambda sum_i z_i ||d_i||,   mean over the batch

    lambda rises from zero over the first `warmup` of the steps. Rows of W_dec are free; they
    start in random directions with norm .1, W_enc as their transpose, biases at zero.

    Source: Anthropic, circuits update of April 2024 (there lambda = 5, warm-up 5 %).
    """

    l1: float
    warmup: float
    unit_rows: bool = False

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """Short rows in random directions, W_enc their transpose, biases zero."""
        sae = SAE(x_ND.shape[1], latents, Sparsity("relu"), pre_bias=False)
        return initialised(sae, generator, decoder_norm=0.1)

    def loss(
        self, sae: SAE, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        z_NS = sae.encode(x_ND)
        x_hat_ND = sae.decode(z_NS)
        weight = self.l1 * min(1.0, progress / self.warmup if self.warmup else 1.0)
        penalty_N = z_NS @ sae.W_dec.norm(dim=1)
        on_NS = z_NS.detach() > 0
        return Loss(
            total=((x_ND - x_hat_ND).square().sum(dim=1) + weight * penalty_N).mean(),
            x_hat_ND=x_hat_ND.detach(),
            fired_S=on_NS.any(dim=0),
            active=on_NS.sum() / len(x_ND),
        )


def aux_loss(
    sae: SAE,
    x_ND: Float[Tensor, "n d"],
    error_ND: Float[Tensor, "n d"],
    dead_S: Bool[Tensor, " s"],
    aux_k: int,
) -> Float[Tensor, ""]:
    """AuxK: ||e - e_hat||^2, mean over the batch, where e_hat is what the aux_k largest *dead*
    latents make of it; e is taken as it is (no gradient). 0 where none are dead.

    The pre-activations of the dead are computed anew, and those alone, so that the step itself
    need not keep any. Source: Gao et al. (2406.04093), appendix A.2.
    """
    dead = dead_S.nonzero().squeeze(1)
    if not len(dead):
        return error_ND.new_zeros(())
    values_NK, place_NK = topk_entries(sae.pre(x_ND, dead), min(aux_k, len(dead)))
    e_hat_ND = sae.combine(values_NK, dead[place_NK])
    return (error_ND.detach() - e_hat_ND).square().sum(dim=1).mean()


def counted(total: Float[Tensor, ""], active: Active, dead_S: Bool[Tensor, " s"]) -> Loss:
    """The loss of a k-sparse dictionary, with what the loop counts."""
    on_M = active.values_M > 0
    fired_S = torch.zeros_like(dead_S)
    fired_S[active.indices_M[on_M]] = True
    x_hat_ND = active.x_hat_ND.detach()
    return Loss(total, x_hat_ND, fired_S, active=on_M.sum() / len(x_hat_ND))


def make_objective(config: TrainConfig, width: int) -> Objective:
    """The objective that a config asks for."""
    if config.objective == "topk":
        aux_k = config.aux_k or max(1, width // 2)
        return TopK(config.k, aux_k, config.aux_weight, config.bias)
    return ReluL1(config.l1, config.l1_warmup)
