"""TopK, and what all objectives with k active latents share."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.models.dictionaries.kernels.sparse import aux_reconstruction, topk_active
from tendril.models.dictionaries.kernels.sparse_product import Active
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity

from ..config import TrainConfig
from .base import Loss, Objective, Shape, annealed, middle, squared


@final
@dataclass(frozen=True)
class Aux:
    """AuxK: the number of dead latents that reconstruct the residual, and the weight of that term.

    Source: Gao et al. (2406.04093), appendix A.2 (weight 1/32, count about D/2).
    """

    count: int
    weight: float


class KSparse(Objective[SAE]):
    """Latents compete for k places."""

    @property
    def new_norm(self) -> float:
        """A latent that is initialised again must be able to win."""
        return 1.0


@final
@dataclass(frozen=True)
class TopK(KSparse):
    """TopK with AuxK.

        z = ReLU(TopK((x - b_dec) W_enc + b_enc)),  x_hat = z W_dec + b_dec
        L = (||x - x_hat||^2 + aux_weight ||e - e_hat||^2) / D,   mean over the batch

    where e = x - x_hat without its gradient, and e_hat = z_aux W_dec with z_aux the aux_k largest
    pre-activations of the *dead* latents. Rows of W_dec have norm 1; W_enc starts as W_dec^T, b_dec
    as the geometric median. With E||x||^2 = D the first term is the normalised squared error. k
    falls from D over the first `anneal` of the steps.

    Source: Gao et al., Scaling and evaluating sparse autoencoders (2406.04093), eq. 3, section 2.4
    and appendices A.1, A.2.
    """

    k: int
    aux: Aux
    bias: str
    anneal: float = 0.0

    @property
    def unit_rows(self) -> bool:
        """Latents compete, so their directions have the same norm."""
        return True

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """Unit rows in random directions, W_enc their transpose, b_dec in the middle."""
        sae = SAE(x_ND.shape[1], latents, Sparsity("topk", self.k), pre_bias=True)
        return initialised(sae, generator, bias_D=middle(x_ND, self.bias))

    def loss(
        self, sae: SAE, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        k = annealed(self.k, min(sae.width, sae.latents), self.anneal, progress)
        active = topk_active(sae, x_ND, k)
        error_ND = x_ND - active.x_hat_ND
        missed = squared(error_ND).mean() + aux_loss(sae, x_ND, error_ND, dead_S, self.aux)
        return counted(missed / sae.width, active, dead_S)


def topk(config: TrainConfig, shape: Shape) -> TopK:
    """TopK of a config."""
    return TopK(config.k, aux_of(config, shape.width), config.bias, config.k_anneal)


def aux_of(config: TrainConfig, width: int) -> Aux:
    """AuxK of a config, for vectors of this width."""
    return Aux(config.aux_k or max(1, width // 2), config.aux_weight)


def aux_loss(
    sae: SAE,
    x_ND: Float[Tensor, "n d"],
    error_ND: Float[Tensor, "n d"],
    dead_S: Bool[Tensor, " s"],
    aux: Aux,
) -> Float[Tensor, ""]:
    """weight ||e - e_hat||^2, mean over the batch: e_hat is the reconstruction of e, taken without
    its gradient, by the largest *dead* latents. 0 if none are dead.

    Source: Gao et al. (2406.04093), appendix A.2.
    """
    dead = dead_S.nonzero().squeeze(1)
    if not aux.weight or not len(dead):
        return error_ND.new_zeros(())
    e_hat_ND = aux_reconstruction(sae, x_ND, dead, aux.count)
    return aux.weight * squared(error_ND.detach() - e_hat_ND).mean()


def counted(
    total: Float[Tensor, ""],
    active: Active,
    dead_S: Bool[Tensor, " s"],
    least: Float[Tensor, ""] | None = None,
) -> Loss:
    """The loss of a k-sparse dictionary, with what the loop counts."""
    on_M = active.values_M > 0
    fired_S = torch.zeros_like(dead_S)
    fired_S[active.indices_M[on_M]] = True
    x_hat_ND = active.x_hat_ND.detach()
    return Loss(total, x_hat_ND, fired_S, on_M.sum() / len(x_hat_ND), least)
