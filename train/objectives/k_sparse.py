"""TopK, and what all objectives with k active latents share."""

from dataclasses import dataclass
from typing import Literal, final

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
    """AuxK: the number of dead latents that reconstruct the residual, the weight of that term, and
    what the term is divided by (see `aux_term`).

    Source: Gao et al. (2406.04093), appendix A.2 (weight 1/32, count about D/2).
    """

    count: int
    weight: float
    norm: Literal["none", "residual"] = "none"


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
    as the geometric median. k falls from D over the first `anneal` of the steps.

    How this differs:
    - Paper: it subtracts from each vector its mean over the D dimensions and divides by the norm;
      here vectors keep their means and relative norms. Its error is divided by the error of the
      mean prediction. Ours is divided by E||x||^2 = D, which is the same for data of zero mean
      only; otherwise it is smaller.
    - OpenAI's code: divides the error by the variance of a sample of the data, and AuxK by the
      variance of the residual (`aux_norm` residual). It scales W_enc once, so that reconstructions
      of unit vectors start with norm 1.
    - dictionary_learning: AuxK is divided by the variance of the residual, the error by nothing, so
      that 1/32 weighs less there the larger the vectors are.
    - SAELens: AuxK is divided by nothing, as here, but is multiplied by dead / (D/2) if fewer than
      D/2 latents are dead, and its reconstruction includes b_dec.

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
    return Aux(config.aux_k or max(1, width // 2), config.aux_weight, config.aux_norm)


def aux_loss(
    sae: SAE,
    x_ND: Float[Tensor, "n d"],
    error_ND: Float[Tensor, "n d"],
    dead_S: Bool[Tensor, " s"],
    aux: Aux,
) -> Float[Tensor, ""]:
    """The `aux_term` of the largest *dead* latents, whose reconstruction of e is e_hat. 0 if none
    are dead."""
    dead = dead_S.nonzero().squeeze(1)
    if not aux.weight or not len(dead):
        return error_ND.new_zeros(())
    e_hat_ND = aux_reconstruction(sae, x_ND, dead, aux.count)
    return aux_term(error_ND, e_hat_ND, aux)


def aux_term(
    error_ND: Float[Tensor, "n d"], e_hat_ND: Float[Tensor, "n d"], aux: Aux
) -> Float[Tensor, ""]:
    """The AuxK term, for a loss that is then divided by D. e = x - x_hat has no gradient here.

        none       weight ||e - e_hat||^2
        residual   weight D ||e - e_hat||^2 / ||e - mean e||^2

    with means over the batch, of the numerator and of the denominator. With `residual` the term
    keeps its weight against the error while the error falls. It is 0 if all residuals are equal.

    Source: Gao et al. (2406.04093), appendix A.2; the division is that of `normalized_mse` in
    OpenAI's sparse_autoencoder/kernels.py, where NaN counts as 0.
    """
    error_ND = error_ND.detach()
    term = aux.weight * squared(error_ND - e_hat_ND).mean()
    if aux.norm == "none":
        return term
    variance = squared(error_ND - error_ND.mean(dim=0)).mean()
    return term * torch.where(variance > 0, error_ND.shape[1] / variance, 0)


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
