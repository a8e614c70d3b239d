"""What a latent writes: the tokens that its direction promotes, and the latents most like it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional

from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import Store

if TYPE_CHECKING:
    from tendril.models.subjects.language import LanguageSubject

AT_ONCE = 2**25  # logits, or cosines, held at a time: 128 MB
LATENTS_AT_ONCE = 256


@final
@dataclass(frozen=True)
class Promoted:
    """Tokens with their logit weights: the highest weights falling, the lowest rising."""

    up_SP: Int64[Tensor, "s p"]
    up_weight_SP: Float32[Tensor, "s p"]
    down_SP: Int64[Tensor, "s p"]
    down_weight_SP: Float32[Tensor, "s p"]


@torch.inference_mode()
def promoted(
    subject: "LanguageSubject", W_dec: Float[Tensor, "s d"], count: int
) -> Promoted | None:
    """The `count` tokens that each direction promotes most, and suppresses most.

    None for an encoder, and for directions of another width than the unembedding's. Logit weight
    of token v for latent i with the decoder row d_i:

        l_iv = W_U[v] . N(v_i) - mean over v,      v_i = sqrt(D) d_i / ||d_i||
        N(x) = (norm(x) - norm(-x)) / 2

    `norm` is the model's final norm, applied as the model applies it. For an RMSNorm of scale g
    N(x) = g * x; for a LayerNorm N(x) = g * (x - mean x) / std x. The bias cancels, and so does
    the epsilon up to a part in 10^5. The mean over the vocabulary is subtracted because a
    softmax ignores it. So l_i are the logits that the model would give if the residual stream
    before its final norm were the latent's direction alone: the direct path, which skips the
    blocks between the site and the end. A soft cap or scale of the logits is left out.
    Source: nostalgebraist, interpreting GPT: the logit lens (2020).
    """
    unembed = _module(subject, subject.unembed)
    weight = getattr(unembed, "weight", None)
    if not isinstance(weight, Tensor) or weight.shape[1:] != W_dec.shape[1:]:
        return None
    W_VD = weight[: len(subject.tokenizer)].float()  # a vocabulary may be padded
    count = min(count, len(W_VD))
    v_SD = unit(W_dec) * W_dec.shape[1] ** 0.5
    parts = []
    for some in v_SD.split(max(1, min(LATENTS_AT_ONCE, AT_ONCE // len(W_VD)))):
        logits_SV = read_out(subject, some.to(weight.device)) @ W_VD.T
        logits_SV -= logits_SV.mean(dim=1, keepdim=True)
        up, down = logits_SV.topk(count), logits_SV.topk(count, largest=False)
        parts.append((up.indices.cpu(), up.values.cpu(), down.indices.cpu(), down.values.cpu()))
    return Promoted(*(torch.cat(part) for part in zip(*parts, strict=True)))


def read_out(subject: "LanguageSubject", v_SD: Float[Tensor, "s d"]) -> Float[Tensor, "s d"]:
    """N(x) of `promoted`: the final norm without its bias, or x itself where there is none."""
    norm = _module(subject, subject.final_norm)
    if norm is None:
        return v_SD
    dtype = next(norm.parameters(), v_SD).dtype
    there: Tensor = norm(v_SD.to(dtype))
    back: Tensor = norm(-v_SD.to(dtype))
    return ((there - back) / 2).float()


@torch.inference_mode()
def neighbours(
    W_dec: Float[Tensor, "s d"], count: int
) -> tuple[Int64[Tensor, "s k"], Float32[Tensor, "s k"]]:
    """For each latent the `count` others whose decoder rows have the highest cosine with its own,
    and the cosines, falling."""
    unit_SD = unit(W_dec)
    count = min(count, len(unit_SD) - 1)
    numbers, cosines = [], []
    rows = max(1, AT_ONCE // len(unit_SD))
    for start in range(0, len(unit_SD), rows):
        some = unit_SD[start : start + rows]
        cosine_RS = some @ unit_SD.T
        cosine_RS[range(len(some)), range(start, start + len(some))] = -torch.inf
        best = cosine_RS.topk(count)
        numbers.append(best.indices.cpu())
        cosines.append(best.values.cpu())
    return torch.cat(numbers), torch.cat(cosines)


def unit(W_dec: Float[Tensor, "s d"]) -> Float[Tensor, "s d"]:
    """Rows of length one, in float32; a row of zeros stays zero."""
    return functional.normalize(W_dec.float(), dim=1)


def _module(subject: "LanguageSubject", path: str) -> nn.Module | None:
    return subject.module.get_submodule(path) if path else None


FIELDS = tuple(field.name for field in dataclasses.fields(Promoted))
TOKENS = 10  # promoted and suppressed tokens of a latent


def writes_of(
    rows: Store | PairedStores,
    sites: Sequence[str],
    trained: Mapping[str, Any],
    W_dec: Float[Tensor, "s d"],
    subject: str,
    device: torch.device,
) -> "tuple[LanguageSubject, Promoted | None, str]":
    """The language model, the tokens that latents promote, and what a reader must know of these:
    why there are none, or which network they are of.

    Of several sites of a network the last one counts. Tokens of both networks are the same.
    """
    from ..core.language_inputs import language_subject_of  # transformers

    if not isinstance(rows, PairedStores):
        found = language_subject_of(rows, sites[-1], subject)
        found.module.to(device)
        writes = promoted(found, W_dec[:, -rows.width(sites[-1]) :], TOKENS)
        return found, writes, "" if writes else no_logits(found, sites[-1])
    ends = {rows.parts[part][0].name: part for part in sites}  # the last site of each network
    begins, at = {}, 0
    for part in sites:
        begins[part], at = at, at + rows.width(part)
    both: list[Promoted] = []
    norms: list[Tensor] = []
    subjects: list[LanguageSubject] = []
    scales = trained.get("scales") or {}
    for part in ends.values():
        store, site = rows.parts[part]
        one = language_subject_of(store, site)
        one.module.to(device)
        d_SD = W_dec[:, begins[part] : begins[part] + rows.width(part)]
        writes = promoted(one, d_SD, TOKENS)
        subjects.append(one)
        if writes is None:
            return subjects[0], None, no_logits(one, site)
        both.append(writes)
        norms.append(d_SD.norm(dim=1).cpu() * float(scales.get(part, 1.0)))
    second_S1 = (norms[1] > norms[0])[:, None]
    first, second = both
    fields: list[Tensor] = [
        torch.where(second_S1, getattr(second, name), getattr(first, name)) for name in FIELDS
    ]
    merged = Promoted(*fields)
    note = (
        "Tokens are those that a latent promotes in the network where its direction is longer, "
        f"{' or '.join(one.name for one in subjects)}."
    )
    return subjects[0], merged, note


def no_logits(subject: "LanguageSubject", site: str) -> str:
    """Why there are no logit weights, in a sentence."""
    if subject.kind == "encoder":
        return (
            f"No promoted tokens are shown: {subject.name} is an encoder, which ends in vectors "
            "and has no logits."
        )
    if not subject.head:
        return (
            f"No promoted tokens are shown: the files of {subject.name} lack the layer that "
            "computes logits."
        )
    return (
        f"No promoted tokens are shown: the vectors of {site} have another width than those that "
        f"{subject.name} computes its logits from."
    )
