"""Objectives that keep k latents a vector: the k-sparse family."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.models.dictionaries.crosscoder import Ranking, Sources, sourced, weights
from tendril.models.dictionaries.kernels.reference import Active
from tendril.models.dictionaries.kernels.sparse import (
    aux_reconstruction,
    batch_topk_active,
    matryoshka_active,
    topk_active,
)
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity

from ..optim import middle
from .base import Loss, Objective, annealed
from .penalised import only_first, squared


@dataclass(frozen=True)
class Aux:
    """AuxK: how many dead latents model what is left over, and how much that counts.

    Source: Gao et al. (2406.04093), appendix A.2 (weight 1/32, count about D/2).
    """

    count: int
    weight: float


class KSparse(Objective[SAE]):
    """Latents compete for k places."""

    @property
    def new_share(self) -> float:
        """A new latent must be able to win."""
        return 1.0


@final
@dataclass(frozen=True)
class TopK(KSparse):
    """TopK with AuxK.

        z = ReLU(TopK((x - b_dec) W_enc + b_enc)),  x_hat = z W_dec + b_dec
        L = (||x - x_hat||^2 + aux_weight ||e - e_hat||^2) / D,   mean over the batch

    where e = x - x_hat, taken as it is (no gradient), and e_hat = z_aux W_dec with z_aux the
    aux_k largest pre-activations of the *dead* latents. Rows of W_dec have norm 1, W_enc
    starts as W_dec^T, b_dec as the geometric median. With E||x||^2 = D the first term is the
    normalised squared error. k falls from D over the first `anneal` of the steps.

    Source: Gao et al., Scaling and evaluating sparse autoencoders (2406.04093), eq. 3,
    section 2.4 and appendices A.1, A.2.
    """

    k: int
    aux: Aux
    bias: str
    anneal: float = 0.0

    @property
    def unit_rows(self) -> bool:
        """Latents compete, so their directions are of one length."""
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


@final
@dataclass(frozen=True)
class BatchTopK(KSparse):
    """BatchTopK with AuxK, nested where there are several prefixes (Matryoshka).

        z = ReLU(BatchTopK(pre)): the k N largest of the batch,  x_hat_p = z[:p] W_dec[:p] + b_dec
        L = (sum_p ||x - x_hat_p||^2 + aux_weight ||e - e_hat||^2) / D,   mean over the batch

    over the prefixes p of the dictionary; without Matryoshka p = S alone. AuxK as in `TopK`.
    With several sites (`blocks`, their widths) latents are ranked by z_i sum_g ||d_i,g||, or
    by z_i ||d_i|| (`ranking`), and rows of W_dec are free; with one site rows have norm 1.

    Used on single vectors, a latent is on where it passes a threshold: the running mean of the
    smallest value that was on in a batch (over the weight of the latent). The mean runs over
    about `window` steps; the paper takes 1000.

    Source: Bussmann et al., BatchTopK (2412.06410) and Matryoshka SAEs (2503.17547); Minder et
    al. (2504.02922) for crosscoders.
    """

    k: int
    aux: Aux
    bias: str
    window: int
    anneal: float = 0.0
    shares: tuple[float, ...] = (1.0,)
    blocks: tuple[int, ...] = ()
    sources: Sources = "all"
    ranking: Ranking = "sum_of_norms"

    @property
    def unit_rows(self) -> bool:
        """With one site; with several the ranking takes lengths into account."""
        return not self.blocks

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """As `TopK`; the thresholds are not trained."""
        sae = SAE(x_ND.shape[1], latents, Sparsity("jumprelu"), pre_bias=not self.blocks)
        assert sae.threshold is not None
        sae.threshold.requires_grad_(False)
        initialised(sae, generator, bias_D=middle(x_ND, self.bias))
        if self.blocks:  # several sites see b_dec through b_enc alone
            only_first(sae, self.blocks, self.sources)
            sae.b_enc.data.copy_(-sae.b_dec.data @ sae.W_enc.data)
        return sae

    def loss(
        self, sae: SAE, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        k = annealed(self.k, min(sae.width, sae.latents), self.anneal, progress)
        seen_ND = sourced(x_ND, self.blocks, self.sources)
        weight_S = self._weights(sae)
        if len(self.shares) == 1:
            active = batch_topk_active(sae, seen_ND, k, weight_S)
        else:
            active = matryoshka_active(
                sae, seen_ND, k, prefixes(self.shares, sae.latents), weight_S
            )
        errors_PND = x_ND - active.x_hats_PND
        missed = errors_PND.square().sum(dim=(0, 2)).mean()
        missed = missed + aux_loss(sae, seen_ND, errors_PND[-1], dead_S, self.aux)
        on_M = active.values_M.detach()
        ranked_M = on_M if weight_S is None else on_M * weight_S[active.indices_M]
        least = torch.cat([ranked_M[on_M > 0], ranked_M.new_full((1,), torch.inf)]).min()
        return counted(missed / sae.width, active, dead_S, least)

    @torch.no_grad()
    def settle(self, sae: SAE, loss: Loss) -> None:
        """Move the thresholds towards what was just on in this batch."""
        only_first(sae, self.blocks, self.sources)
        assert sae.threshold is not None
        assert loss.least is not None
        weight_S = self._weights(sae)
        now_S = loss.least if weight_S is None else loss.least / weight_S.clamp_min(1e-8)
        now_S = now_S.expand_as(sae.threshold)
        moved_S = sae.threshold + (now_S - sae.threshold) / self.window
        first = sae.threshold == 0
        sae.threshold.copy_(
            torch.where(now_S.isfinite(), torch.where(first, now_S, moved_S), sae.threshold)
        )

    def _weights(self, sae: SAE) -> Float[Tensor, " s"] | None:
        """sum_g ||d_i,g||, by which a crosscoder ranks its latents, or ||d_i||."""
        return weights(sae.W_dec.detach(), self.blocks, self.ranking) if self.blocks else None


def prefixes(shares: tuple[float, ...], latents: int) -> tuple[int, ...]:
    """Where the groups of a Matryoshka dictionary end, the last one at S."""
    ends = torch.tensor(shares, dtype=torch.float64).cumsum(0) / sum(shares)
    return tuple(max(1, round(float(end) * latents)) for end in ends)


def aux_loss(
    sae: SAE,
    x_ND: Float[Tensor, "n d"],
    error_ND: Float[Tensor, "n d"],
    dead_S: Bool[Tensor, " s"],
    aux: Aux,
) -> Float[Tensor, ""]:
    """weight ||e - e_hat||^2, mean over the batch, where e_hat is what the largest *dead*
    latents make of e, which is taken as it is (no gradient). 0 where none are dead.

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
