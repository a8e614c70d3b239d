"""Which tokens latents promote: in the network of the run, or, of a crosscoder of two networks, in
the one where a latent's direction is longer."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import Store
from tendril.models.subjects.language import LanguageSubject

from ..core.language_inputs import language_subject_of
from ..measures.decoder_directions import Promoted, promoted

FIELDS = tuple(field.name for field in dataclasses.fields(Promoted))
TOKENS = 10  # promoted and suppressed tokens of a latent


def writes_of(
    rows: Store | PairedStores,
    sites: Sequence[str],
    trained: Mapping[str, Any],
    W_dec: Float[Tensor, "s d"],
    subject: str,
    device: torch.device,
) -> tuple[LanguageSubject, Promoted | None, str]:
    """The language model, the tokens that latents promote, and what a reader must know of these:
    why there are none, or which network they are of.

    Of several sites of a network the last one counts. Tokens of both networks are the same.
    """
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


def no_logits(subject: LanguageSubject, site: str) -> str:
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
