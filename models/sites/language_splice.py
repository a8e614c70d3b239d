"""Replace the activations at a site of a causal language model and score next-token predictions.

Only positions marked as kept are replaced. Special tokens such as begin-of-text are usually not
kept, so that the result measures the site's vectors rather than the loss of the first token.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from tendril.data.device import float64

from .splice import CLEAN, Substitute, splicing, to_parts, to_vectors

FIGURES = ("count", "loss", "kl", "agreed", "right")


@final
@dataclass(frozen=True)
class TokenBatch:
    """Contexts, the positions to replace, and the group of each prediction.

    `tokens_BT` are token ids. Activations are replaced where `kept_BT` is true. The prediction
    made at a position is counted in group `group_BT`, from 0 up; negative ones are ignored.
    """

    tokens_BT: Int64[Tensor, "b t"]
    kept_BT: Bool[Tensor, "b t"]
    group_BT: Int64[Tensor, "b t"]


@final
@dataclass(frozen=True)
class TokenSums:
    """Sums over predictions, one column per group, which `+` accumulates over batches.

    The rows of `sums_FG` are FIGURES: number of predictions, cross-entropy and KL(clean ||
    spliced) in nats, number of predictions with the clean network's most likely token, number
    with the correct token. `missed` is the summed squared distance between original and replaced
    vectors.
    """

    sums_FG: Float64[Tensor, "f g"]
    missed: float = 0.0

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(self.sums_FG + other.sums_FG, self.missed + other.missed)

    def means(self, chosen_G: Bool[Tensor, " g"] | None = None) -> dict[str, int | float]:
        """The count, and means over predictions, of the chosen groups (default: all).

        `perplexity` is exp of the mean cross-entropy; `agreement` and `top1` are fractions.
        Means of no predictions are NaN.
        """
        chosen_FG = self.sums_FG if chosen_G is None else self.sums_FG[:, chosen_G]
        count, *sums = chosen_FG.sum(dim=1).tolist()
        loss, kl, agreed, right = (value / count if count else float("nan") for value in sums)
        return {
            "count": int(count),
            "cross_entropy": loss,
            "perplexity": float(torch.tensor(loss, dtype=torch.float64).exp()),
            "kl": kl,
            "agreement": agreed,
            "top1": right,
        }


@torch.inference_mode()
def kept_mean(
    module: nn.Module, names: tuple[str, ...], batches: Iterable[TokenBatch]
) -> Float[Tensor, " d"]:
    """Mean of a site's vectors over all kept positions, accumulated in float64."""
    total, count = torch.zeros(0), 0
    with splicing(module, names) as splice:
        for batch in batches:
            x_ND = float64(to_vectors(splice.read(batch.tokens_BT))[batch.kept_BT.flatten()])
            total = x_ND.sum(dim=0) if count == 0 else total + x_ND.sum(dim=0)
            count += len(x_ND)
    return (total / max(count, 1)).float()


@torch.inference_mode()
def next_token_sums(
    module: nn.Module,
    names: tuple[str, ...],
    substitutes: Mapping[str, Substitute],
    batches: Iterable[TokenBatch],
    groups: int,
) -> dict[str, TokenSums]:
    """Sums over next-token predictions, unchanged (`clean`) and with each substitute at the kept
    positions.

    The prediction at position t is scored against token t + 1. `module` maps token ids [B, T] to
    logits [B, T, V].
    """
    empty = TokenSums(torch.zeros(len(FIGURES), groups, dtype=torch.float64))
    sums = dict.fromkeys((CLEAN, *substitutes), empty)
    with splicing(module, names) as splice:
        for batch in batches:
            parts = splice.read(batch.tokens_BT)
            x_ND, kept_N = to_vectors(parts), batch.kept_BT.flatten()
            clean_NV = _predictions(splice.run(batch.tokens_BT, {}), batch)
            sums[CLEAN] += _scores(clean_NV, clean_NV, batch, groups)
            for name, substitute in substitutes.items():
                replaced_ND = x_ND.clone()
                replaced_ND[kept_N] = substitute(x_ND[kept_N]).to(x_ND.dtype)
                missed = float((float64(x_ND) - float64(replaced_ND)).square().sum())
                logits_BTV = splice.run(batch.tokens_BT, to_parts(replaced_ND, parts))
                scores = _scores(_predictions(logits_BTV, batch), clean_NV, batch, groups)
                sums[name] += TokenSums(scores.sums_FG, missed)
    return sums


def _predictions(logits_BTV: Tensor, batch: TokenBatch) -> Float[Tensor, "n v"]:
    """Log-probabilities of the counted predictions; the last position has no next token."""
    counted_BT = batch.group_BT[:, :-1] >= 0
    return torch.log_softmax(logits_BTV[:, :-1][counted_BT].float(), dim=-1)


def _scores(
    logp_NV: Float[Tensor, "n v"], clean_NV: Float[Tensor, "n v"], batch: TokenBatch, groups: int
) -> TokenSums:
    """Sums of FIGURES for log-probabilities of the counted predictions."""
    counted_BT = batch.group_BT[:, :-1] >= 0
    target_N, group_N = batch.tokens_BT[:, 1:][counted_BT], batch.group_BT[:, :-1][counted_BT]
    first_N = logp_NV.argmax(dim=1)
    figures: list[Any] = [
        torch.ones_like(first_N),
        functional.nll_loss(logp_NV, target_N, reduction="none"),
        kl_divergence(clean_NV, logp_NV),
        first_N == clean_NV.argmax(dim=1),
        first_N == target_N,
    ]
    each_FN = torch.stack([float64(figure) for figure in figures])
    sums_FG = each_FN.new_zeros(len(figures), groups).index_add_(
        1, group_N.to(each_FN.device), each_FN
    )
    return TokenSums(sums_FG.cpu())


def kl_divergence(
    logp_NV: Float[Tensor, "*n v"], logq_NV: Float[Tensor, "*n v"]
) -> Float[Tensor, "*n"]:
    """KL(p || q) = sum_v p_v (log p_v - log q_v) in nats, from log-probabilities."""
    return (logp_NV.exp() * (logp_NV - logq_NV)).sum(dim=-1)
