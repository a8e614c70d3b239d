"""What a language model predicts otherwise when one latent is removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float64
from torch import Tensor

from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.language_splice import kl_divergence
from tendril.models.sites.splice import splicing, to_parts, to_vectors
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from ..core.language_text import JudgedText
from ..core.token_text import readable

Findings = dict[str, Any]
"""The JSON object of result.json."""


@final
@dataclass(frozen=True)
class Ablated:
    """What removing a latent changes at the `count` positions where it is active.

    Means over these positions: of the latent's `value`, of KL(clean || ablated) and of the change
    of the next token's cross-entropy (both in nats), and of the change of each token's
    log-probability, `change_V`.
    """

    count: int
    value: float
    kl: float
    loss: float
    change_V: Float64[Tensor, " v"]

    def figures(self, subject: LanguageSubject, tokens: int) -> dict[str, Any]:
        """As JSON values, with the `tokens` tokens that fall most and those that rise most.

        Each token as the tokenizer spells it (`token`) and as readable text (`text`).
        """
        ranked_V = self.change_V.argsort()
        shown = min(tokens, len(ranked_V)) if self.count else 0
        spelled = subject.tokenizer.convert_ids_to_tokens

        def listed(ranked: Tensor) -> list[dict[str, Any]]:
            numbers = ranked[:shown].tolist()
            texts = readable(subject.tokenizer, numbers)
            return [
                {"token": spelled(v), "text": text, "change": float(self.change_V[v])}
                for v, text in zip(numbers, texts, strict=True)
            ]

        return {
            "positions": self.count,
            "value": self.value,
            "kl": self.kl,
            "loss": self.loss,
            "falls": listed(ranked_V),
            "rises": listed(ranked_V.flip(0)),
        }


@torch.inference_mode()
def ablated(
    subject: LanguageSubject,
    site: str,
    sae: SAE,
    latent: int,
    text: JudgedText,
    size: int,
    device: torch.device,
) -> Ablated:
    """Ablate one latent at every kept position: x' = x - z_i d_i.

    All positions of a context are ablated at once, so the effect of an earlier activation on a
    later one is removed too. The rest of x stays, including what the dictionary does not explain.
    """
    names = site_modules(subject, [site])[site]
    sums, count = torch.zeros(3, dtype=torch.float64), 0
    change_V = torch.zeros(subject.vocabulary, dtype=torch.float64)
    with splicing(subject.module, names) as splice:
        for batch in text.batches(size, device, f"latent {latent}"):
            tokens_BT = batch.tokens_BT
            parts = splice.read(tokens_BT)
            x_ND = to_vectors(parts)
            z_N = sae.encode(x_ND.float())[:, latent] * batch.kept_BT.flatten()
            on_BT = (z_N > 0).reshape(tokens_BT.shape)[:, :-1]  # the last one predicts nothing
            if not on_BT.any():
                continue
            put_ND = x_ND - (z_N[:, None] * sae.W_dec[latent]).to(x_ND.dtype)
            clean_NV, without_NV = (
                torch.log_softmax(splice.run(tokens_BT, given)[:, :-1][on_BT].float(), dim=-1)
                for given in ({}, to_parts(put_ND, parts))
            )
            next_N1 = tokens_BT[:, 1:][on_BT][:, None]
            change_NV = (without_NV - clean_NV).double()
            count += len(change_NV)
            change_V += change_NV.sum(dim=0).cpu()
            sums += torch.stack(
                [
                    z_N.reshape(tokens_BT.shape)[:, :-1][on_BT].double().sum(),
                    kl_divergence(clean_NV, without_NV).double().sum(),
                    -change_NV.gather(1, next_N1).sum(),
                ]
            ).cpu()
    value, kl, loss = (sums / max(count, 1)).tolist()
    return Ablated(count, value, kl, loss, change_V / max(count, 1))


def strongest(latents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The latent whose removal changes the predictions most, as scalars for the command's JSON."""
    active = {latent: one for latent, one in latents.items() if one["positions"]}
    if not active:
        return {"latents_active": 0, "strongest": None, "strongest_kl": None}
    latent = max(active, key=lambda one: float(active[one]["kl"]))
    return {
        "latents_active": len(active),
        "strongest": int(latent),
        "strongest_kl": active[latent]["kl"],
    }
