"""What only a language model has: tokens that stand for latents, and layers that are skipped."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import sparse

from tendril.models.dictionaries.checkpoint import read_config
from tendril.models.dictionaries.sae import SAE

from ..core.language_inputs import check_causal, language_subject_of, tokenizer_of_store
from ..core.language_text import held_out_text
from ..core.stores import held_out_fraction
from ..core.token_text import readable
from .config import MatchConfig
from .findings import Link
from .inputs import MatchInputs, mean_when_on
from .skipping import Skip, skipped

EXAMPLES = 4
"""Tokens that stand for a latent."""


def check_model(config: MatchConfig, inputs: MatchInputs) -> None:
    """Raise SubjectError for a causal model that predicts no next token."""
    subject = language_subject_of(inputs.store, inputs.sites[0], config.subject)
    if subject.kind == "causal":
        check_causal(subject, "match")


def words_of(
    inputs: MatchInputs,
    rows: np.ndarray,
    z_NS: sparse.csr_array,
    latents: Sequence[int] | np.ndarray,
) -> dict[int, str]:
    """The tokens that latents are most active on, most active first."""
    tokens = inputs.store.column("token")[rows]
    tokenizer = tokenizer_of_store(inputs.store)
    columns = sparse.csc_array(z_NS)
    found = {}
    for latent in map(int, latents):
        place = slice(columns.indptr[latent], columns.indptr[latent + 1])
        strongest = np.argsort(-columns.data[place], kind="stable")
        seen = dict.fromkeys(int(tokens[n]) for n in columns.indices[place][strongest])
        found[latent] = " ".join(
            f"“{piece.strip() or repr(piece)[1:-1]}”"
            for piece in readable(tokenizer, list(seen)[:EXAMPLES])
        )
    return found


def skipped_layers(
    config: MatchConfig,
    inputs: MatchInputs,
    links: Sequence[Link],
    saes: Sequence[SAE],
    found: Sequence[sparse.csr_array],
    device: torch.device,
) -> list[dict[str, Any]]:
    """What it costs to skip each layer but the first; empty where that cannot be asked."""
    if not config.contexts or not inputs.language or len({sae.width for sae in saes}) > 1:
        return []
    subject = language_subject_of(inputs.store, inputs.sites[0], config.subject)
    if subject.kind != "causal":
        return []
    subject.module.to(device)
    fraction = held_out_fraction([read_config(run) for run in inputs.runs])
    text = held_out_text(inputs.store, fraction, config.contexts)
    scales = [_scales(sae, z_NS) for sae, z_NS in zip(saes, found, strict=True)]
    return [
        skipped(
            subject,
            Skip((inputs.sites[i], inputs.sites[j]), (saes[i], saes[j]), links[i].partner_S,
                 (scales[i], scales[j])),
            text,
            config.batch_size,
            device,
        )
        for i, j in pairwise(range(len(saes)))
    ]  # fmt: skip


def _scales(sae: SAE, z_NS: sparse.csr_array) -> np.ndarray:
    if sae.threshold is None:
        return mean_when_on(z_NS)
    found: np.ndarray = sae.threshold.detach().double().cpu().numpy()
    return found
