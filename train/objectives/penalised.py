"""Objectives in which latents do not compete: L1 penalties, gates, thresholds."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from tendril.models.dictionaries.crosscoder import Ranking, Sources, sourced, weights
from tendril.models.dictionaries.gated import Gated
from tendril.models.dictionaries.sae import SAE, initialised, random_directions
from tendril.models.dictionaries.sparsity import Sparsity
from tendril.models.dictionaries.straight_through import jumprelu_st, paper_bandwidth, step_st
from tendril.models.dictionaries.tied import Tied

from ..config import TrainConfig
from .base import Loss, Objective, Shape, middle, only_first, squared, warmed

MOST_VALUES = 2**24
"""Pre-activations that the first threshold is taken from, at most."""


@final
@dataclass(frozen=True)
class ReluL1(Objective[SAE]):
    """ReLU with an L1 penalty weighted by the norms of the directions.

        z = ReLU(x W_enc + b_enc),  x_hat = z W_dec + b_dec
        L = ||x - x_hat||^2 + lambda sum_i z_i ||d_i||,   mean over the batch

    With several sites (`blocks`, their widths), i.e. for a crosscoder, ||d_i|| is the sum of the
    sites' ||d_i,g||, or the norm over all of them (`ranking`). lambda rises from zero over the
    first `warmup` of the steps. Rows of W_dec have free norms; they start in random directions
    with norm `decoder_norm`, W_enc as their transpose, biases at zero.

    Source: Anthropic, circuits update of April 2024 (there lambda = 5, warm-up 5 %); Lindsey et
    al., Sparse crosscoders, October 2024.

    How this differs:
    - Paper: rows start with one norm, where the update of April 2024 draws norms from 0.05 to 1.
      Vectors have E||x||^2 = D there, too, so lambda means the same.
    - dictionary_learning and SAELens: vectors are scaled only if asked to. For vectors s times as
      long, lambda s gives the same dictionary.
    """

    l1: float
    warmup: float
    blocks: tuple[int, ...] = ()
    sources: Sources = "all"
    ranking: Ranking = "sum_of_norms"
    decoder_norm: float = 0.1

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """Short rows in random directions, W_enc their transpose, biases zero."""
        sae = SAE(x_ND.shape[1], latents, Sparsity("relu"), pre_bias=False)
        initialised(sae, generator, decoder_norm=self.decoder_norm)
        only_first(sae, self.blocks, self.sources)
        return sae

    def loss(
        self, sae: SAE, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        z_NS = sae.encode(sourced(x_ND, self.blocks, self.sources))
        x_hat_ND = sae.decode(z_NS)
        penalty_N = z_NS @ weights(sae.W_dec, self.blocks, self.ranking)
        weight = warmed(self.l1, self.warmup, progress)
        total = (squared(x_ND - x_hat_ND) + weight * penalty_N).mean()
        return counted(total, x_hat_ND, z_NS > 0)

    def settle(self, sae: SAE, loss: Loss) -> None:
        """Encoders of sites that are not read stay zero."""
        only_first(sae, self.blocks, self.sources)


@final
@dataclass(frozen=True)
class TiedL1(Objective[Tied]):
    """One matrix M with rows of norm 1, and an L1 penalty.

        z = ReLU(x M^T + b),  x_hat = z M,   L = ||x - x_hat||^2 + alpha ||z||_1

    mean over the batch.

    Source: Cunningham et al. (2309.08600), eqs. 1 to 3.

    How this differs:
    - Paper: its vectors are not scaled. For vectors s times as long, alpha s gives the same
      dictionary as alpha here, with b s in place of b.
    - Its public code takes the mean over dimensions, so its alpha is ours over D, besides s.
    - Our alpha rises from zero during a warm-up, and a large mean is subtracted before.
    """

    l1: float
    warmup: float

    @property
    def unit_rows(self) -> bool:
        """The rows of M have norm 1."""
        return True

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> Tied:
        """Rows in random directions, biases zero."""
        sae = Tied(x_ND.shape[1], latents)
        sae.W_dec.data.copy_(random_directions(latents, sae.width, generator))
        return sae

    def loss(
        self, sae: Tied, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        z_NS = sae.encode(x_ND)
        x_hat_ND = sae.decode(z_NS)
        penalty_N = warmed(self.l1, self.warmup, progress) * z_NS.sum(dim=1)
        return counted((squared(x_ND - x_hat_ND) + penalty_N).mean(), x_hat_ND, z_NS > 0)


@final
@dataclass(frozen=True)
class GatedL1(Objective[Gated]):
    """A gate with its own L1 penalty, so that magnitudes are not shrunk.

        L = ||x - x_hat(z)||^2 + lambda ||ReLU(gate)||_1 + ||x - x_hat_frozen(ReLU(gate))||^2

    mean over the batch. The last term trains the gate to reconstruct, through a frozen decoder (no
    gradient for W_dec and the b_dec added there). Rows of W_dec have norm 1, W_enc starts as
    W_dec^T, b_dec in the middle of the vectors.

    Source: Rajamanoharan et al. (2404.16014), eq. 8.

    How this differs:
    - Paper, dictionary_learning and SAELens: a lambda holds for the scale of their vectors. For
      vectors s times as long, lambda s gives the same dictionary.
    - SAELens: rows need not have norm 1, and the penalty is weighted by their norms.
    """

    l1: float
    warmup: float
    bias: str

    @property
    def unit_rows(self) -> bool:
        """The penalty assumes it."""
        return True

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> Gated:
        """Gate and magnitude equal, W_enc the transpose of unit rows."""
        sae = Gated(x_ND.shape[1], latents)
        sae.W_dec.data.copy_(random_directions(latents, sae.width, generator))
        sae.W_enc.data.copy_(sae.W_dec.data.T)
        sae.b_dec.data.copy_(middle(x_ND, self.bias))
        return sae

    def loss(
        self, sae: Gated, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        gate_NS, magnitude_NS = sae.paths(x_ND)
        z_NS = torch.where(gate_NS > 0, torch.relu(magnitude_NS), 0)
        x_hat_ND = sae.decode(z_NS)
        open_NS = torch.relu(gate_NS)
        frozen_ND = functional.linear(open_NS, sae.W_dec.detach().T, sae.b_dec.detach())
        penalty_N = warmed(self.l1, self.warmup, progress) * open_NS.sum(dim=1)
        total_N = squared(x_ND - x_hat_ND) + penalty_N + squared(x_ND - frozen_ND)
        return counted(total_N.mean(), x_hat_ND, z_NS > 0)


@final
@dataclass(frozen=True)
class JumpReLU(Objective[SAE]):
    """A threshold for each latent, trained on the number of active latents.

        z = p 1[p > theta],  p = (x - b_dec) W_enc + b_enc,  x_hat = z W_dec + b_dec
        L = ||x - x_hat||^2 / D + lambda L0(z)                        (penalty)
        L = ||x - x_hat||^2 / D + lambda (mean L0(z) / target - 1)^2  (if a target is given)

    mean over the batch, with straight-through gradients for theta. Rows of W_dec have norm 1 and
    W_enc starts as their transpose.

    Source: Rajamanoharan et al., Jumping ahead (2407.14435), eqs. 9 and 10, appendix on
    training to a target.

    How this differs:
    - Units: the paper has E||x||^2 = 1, we have D. Pre-activations, theta and the bandwidth are
      sqrt(D) times the paper's; the first term and lambda are the same. The paper's bandwidth 0.001
      is `paper_bandwidth(D)` = 0.001 sqrt(D), chosen by --bandwidth 0: 0.008 for D = 64, 0.0098 for
      96, 0.022 for 480. Our default 0.1 is 10 times the paper's for D = 96 and 4.6 times for 480:
      wider kernels see more vectors, which matters in short runs.
    - theta itself is trained and held at or above zero; the paper trains its logarithm, which moves
      too little in short runs. It starts at half a bandwidth, or where `start_l0` latents of a
      vector are active; the paper's starts at 0.001 of its units.
    - b_dec, which starts in the middle of the vectors, is subtracted before W_enc too, which
      changes the meaning of b_enc only.
    - dictionary_learning trains theta, too, but does not scale vectors by itself, and applies the
      step function to z; SAELens trains the logarithm. Both take bandwidth 0.001 in the units of
      the vectors that they are given.
    """

    l0: float
    target: float
    bandwidth: float
    warmup: float
    bias: str
    start_l0: float = 0.0

    @property
    def unit_rows(self) -> bool:
        """Thresholds have no meaning for free norms."""
        return True

    def start(self, x_ND: Float[Tensor, "n d"], latents: int, generator: torch.Generator) -> SAE:
        """Unit rows, W_enc their transpose, one threshold for all, at least half a bandwidth."""
        sae = SAE(x_ND.shape[1], latents, Sparsity("jumprelu"), pre_bias=True)
        initialised(sae, generator, bias_D=middle(x_ND, self.bias))
        assert sae.threshold is not None
        threshold = self.bandwidth / 2
        if self.start_l0:
            pre_M = sae.pre(x_ND).detach().flatten()[:MOST_VALUES]
            passing = max(1, min(len(pre_M), round(self.start_l0 / latents * len(pre_M))))
            threshold = max(threshold, float(pre_M.topk(passing).values[-1]))
        sae.threshold.data.fill_(threshold)
        return sae

    def loss(
        self, sae: SAE, x_ND: Float[Tensor, "n d"], dead_S: Bool[Tensor, " s"], progress: float
    ) -> Loss:
        """See the class."""
        assert sae.threshold is not None
        pre_NS = sae.pre(x_ND)
        z_NS = jumprelu_st(pre_NS, sae.threshold, self.bandwidth)
        x_hat_ND = sae.decode(z_NS)
        l0 = step_st(pre_NS, sae.threshold, self.bandwidth).sum(dim=1, dtype=x_ND.dtype).mean()
        penalty = (l0 / self.target - 1).square() if self.target else l0
        missed = squared(x_ND - x_hat_ND).mean() / sae.width
        total = missed + warmed(self.l0, self.warmup, progress) * penalty
        return counted(total, x_hat_ND, z_NS > 0)

    def settle(self, sae: SAE, loss: Loss) -> None:
        """Thresholds stay at or above zero."""
        assert sae.threshold is not None
        sae.threshold.data.clamp_min_(0)


def relu_l1(config: TrainConfig, shape: Shape) -> ReluL1:
    """ReLU with an L1 penalty, of a config."""
    return ReluL1(
        config.l1,
        config.sparsity_warmup,
        shape.blocks,
        config.sources,
        config.ranking,
        config.decoder_norm,
    )


def tied(config: TrainConfig, shape: Shape) -> TiedL1:
    """The tied autoencoder of a config."""
    return TiedL1(config.l1, config.sparsity_warmup)


def gated(config: TrainConfig, shape: Shape) -> GatedL1:
    """The gated autoencoder of a config."""
    return GatedL1(config.l1, config.sparsity_warmup, config.bias)


def jumprelu(config: TrainConfig, shape: Shape) -> JumpReLU:
    """JumpReLU of a config. A bandwidth of 0 is the paper's."""
    bandwidth = config.bandwidth or paper_bandwidth(shape.width)
    numbers = (config.l0, config.target_l0, bandwidth, config.sparsity_warmup)
    return JumpReLU(*numbers, config.bias, config.start_l0)


def counted(
    total: Float[Tensor, ""], x_hat_ND: Float[Tensor, "n d"], on_NS: Bool[Tensor, "n s"]
) -> Loss:
    """A loss with what the loop counts."""
    return Loss(total, x_hat_ND.detach(), on_NS.any(dim=0), on_NS.sum() / len(x_hat_ND))
