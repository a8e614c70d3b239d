"""Put something else in the place of a site of a causal language model, and ask for next tokens.

Positions that are not marked as kept (begin of text and its like) have their own activation in
every condition, so what is measured is what the site's vectors are worth, and not what becomes
of a network without its first token.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional

from .splice import CLEAN, Substitute, splicing, to_parts, to_vectors

FIGURES = ("count", "loss", "kl", "agreed", "right")


@final
@dataclass(frozen=True)
class TokenBatch:
    """Contexts [B, T], the positions whose activation may be replaced, and of each position the
    group, from 0 on, that the prediction made there is counted with; below 0 it is not."""

    tokens_BT: Int64[Tensor, "b t"]
    kept_BT: Bool[Tensor, "b t"]
    group_BT: Int64[Tensor, "b t"]


@final
@dataclass(frozen=True)
class TokenSums:
    """Sums over predictions, a column a group: how many, their cross-entropy, KL(clean ||
    spliced) (both in nats), how many had the clean network's first choice, how many the right
    token. `missed` is the squared distance of what was put at the site from what was there."""

    sums_FG: Float64[Tensor, "f g"]
    missed: float = 0.0

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(self.sums_FG + other.sums_FG, self.missed + other.missed)

    def means(self, chosen_G: Bool[Tensor, " g"] | None = None) -> dict[str, int | float]:
        """Counts as they are and all else as means, of some groups or all; perplexity is e to the
        mean cross-entropy."""
        kept_FG = self.sums_FG if chosen_G is None else self.sums_FG[:, chosen_G]
        count, *sums = kept_FG.sum(dim=1).tolist()
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
    """Mean of a site's vectors over all positions that are kept, float64 sums."""
    total, count = torch.zeros(0), 0
    with splicing(module, names) as splice:
        for batch in batches:
            x_ND = to_vectors(splice.read(batch.tokens_BT))[batch.kept_BT.flatten()].double()
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
    """How well next tokens are predicted with the site as it is (`clean`), and with each
    substitute in its place at the positions that are kept.

    The prediction made at position t is held against token t + 1. `module` takes token ids and
    gives logits [B, T, V].
    """
    nothing = TokenSums(torch.zeros(len(FIGURES), groups, dtype=torch.float64))
    found = dict.fromkeys((CLEAN, *substitutes), nothing)
    with splicing(module, names) as splice:
        for batch in batches:
            parts = splice.read(batch.tokens_BT)
            x_ND, kept_N = to_vectors(parts), batch.kept_BT.flatten()
            clean_NV = _predictions(splice.run(batch.tokens_BT, {}), batch)
            found[CLEAN] += _compared(clean_NV, clean_NV, batch, groups)
            for name, substitute in substitutes.items():
                put_ND = x_ND.clone()
                put_ND[kept_N] = substitute(x_ND[kept_N]).to(x_ND.dtype)
                missed = float((x_ND.double() - put_ND).square().sum())
                answer = splice.run(batch.tokens_BT, to_parts(put_ND, parts))
                told = _compared(_predictions(answer, batch), clean_NV, batch, groups)
                found[name] += TokenSums(told.sums_FG, missed)
    return found


def _predictions(logits_BTV: Tensor, batch: TokenBatch) -> Float[Tensor, "n v"]:
    """Log-probabilities of the predictions that count; the last position predicts nothing."""
    asked_BT = batch.group_BT[:, :-1] >= 0
    return torch.log_softmax(logits_BTV[:, :-1][asked_BT].float(), dim=-1)


def _compared(
    told_NV: Float[Tensor, "n v"], clean_NV: Float[Tensor, "n v"], batch: TokenBatch, groups: int
) -> TokenSums:
    asked_BT = batch.group_BT[:, :-1] >= 0
    right_N, group_N = batch.tokens_BT[:, 1:][asked_BT], batch.group_BT[:, :-1][asked_BT]
    first_N = told_NV.argmax(dim=1)
    figures: list[Any] = [
        torch.ones_like(first_N),
        functional.nll_loss(told_NV, right_N, reduction="none"),
        kl_divergence(clean_NV, told_NV),
        first_N == clean_NV.argmax(dim=1),
        first_N == right_N,
    ]
    each_FN = torch.stack([figure.double() for figure in figures])
    sums_FG = each_FN.new_zeros(len(figures), groups).index_add_(1, group_N, each_FN)
    return TokenSums(sums_FG.cpu())


def kl_divergence(
    logp_NV: Float[Tensor, "*n v"], logq_NV: Float[Tensor, "*n v"]
) -> Float[Tensor, "*n"]:
    """KL(p || q) in nats = sum_v p (log p - log q), of log-probabilities."""
    return (logp_NV.exp() * (logp_NV - logq_NV)).sum(dim=-1)
