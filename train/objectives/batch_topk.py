"""BatchTopK and Matryoshka: k active latents on average, of one site or of several."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.models.dictionaries.crosscoder import Ranking, Sources, sourced, weights
from tendril.models.dictionaries.kernels.sparse import batch_topk_active, matryoshka_active
from tendril.models.dictionaries.sae import SAE, initialised
from tendril.models.dictionaries.sparsity import Sparsity

from ..config import TrainConfig
from .base import Loss, Shape, annealed, middle, only_first
from .k_sparse import Aux, KSparse, aux_loss, aux_of, counted

WINDOW = 1000  # steps that a threshold's running mean spans, at most


@final
@dataclass(frozen=True)
class BatchTopK(KSparse):
    """BatchTopK with AuxK; with several prefixes, nested (Matryoshka).

        z = ReLU(BatchTopK(pre)): the k N largest of the batch,  x_hat_p = z[:p] W_dec[:p] + b_dec
        L = (sum_p ||x - x_hat_p||^2 + aux_weight ||e - e_hat||^2) / D,   mean over the batch

    over the prefixes p of the dictionary; without Matryoshka p = S alone. `fractions` are those
    that each prefix adds. AuxK as in `TopK`. With several sites (`blocks`, their widths) latents
    are ranked by z_i sum_g ||d_i,g||, or by z_i ||d_i|| (`ranking`), and rows of W_dec have free
    norms; with one site rows have norm 1.

    On single vectors a latent is active if it passes a threshold: the running mean of the smallest
    active value of a batch (divided by the weight of the latent). The mean spans about `window`
    steps; the paper takes 1000.

    Source: Bussmann et al., BatchTopK (2412.06410) and Matryoshka SAEs (2503.17547); Minder et al.
    (2504.02922) for crosscoders.

    How this differs:
    - What `TopK` says of the normalised error, of AuxK and of other programs holds here, too.
    - dictionary_learning: the threshold is a running mean with weight 0.999 that starts after 1,000
      steps; ours starts at once, with weight 1 - 1 / `window`. Its Matryoshka takes the mean over
      prefixes, where we take the sum, as the paper does; AuxK counts for more there.
    - `sources` other than all is in none of the papers.
    """

    k: int
    aux: Aux
    bias: str
    window: int
    anneal: float = 0.0
    fractions: tuple[float, ...] = (1.0,)
    blocks: tuple[int, ...] = ()
    sources: Sources = "all"
    ranking: Ranking = "sum_of_norms"

    @property
    def unit_rows(self) -> bool:
        """True for one site; for several the ranking takes norms into account."""
        return not self.blocks

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """As `TopK`; thresholds are not trained."""
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
        if len(self.fractions) == 1:
            active = batch_topk_active(sae, seen_ND, k, weight_S)
        else:
            active = matryoshka_active(
                sae, seen_ND, k, prefixes(self.fractions, sae.latents), weight_S
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
        """Move the thresholds towards the smallest active value of this batch."""
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
        """The weights by which a crosscoder ranks its latents: sum_g ||d_i,g||, or ||d_i||."""
        return weights(sae.W_dec.detach(), self.blocks, self.ranking) if self.blocks else None


def batch_topk(config: TrainConfig, shape: Shape) -> BatchTopK:
    """BatchTopK or Matryoshka of a config."""
    return BatchTopK(
        config.k,
        aux_of(config, shape.width),
        config.bias,
        window=min(WINDOW, max(1, config.steps // 20)),
        anneal=config.k_anneal,
        fractions=config.groups if config.objective == "matryoshka" else (1.0,),
        blocks=shape.blocks,
        sources=config.sources,
        ranking=config.ranking,
    )


def prefixes(fractions: tuple[float, ...], latents: int) -> tuple[int, ...]:
    """Where the prefixes of a Matryoshka dictionary end, the last one at S."""
    ends = torch.tensor(fractions, dtype=torch.float64).cumsum(0) / sum(fractions)
    return tuple(max(1, round(float(end) * latents)) for end in ends)
