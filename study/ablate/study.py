"""What a language model says otherwise where one latent is taken away."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float64
from torch import Tensor

from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.tables import columns
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.language_splice import kl_divergence
from tendril.models.sites.splice import splicing, to_parts, to_vectors
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from ..core.language_inputs import language_subject_of, store_of_run
from ..core.language_text import JudgedText, check_causal, given_text, held_out_share, held_out_text
from ..patching.config import AblateConfig
from ..splice.images import one_site


@final
@dataclass(frozen=True)
class Ablated:
    """What taking a latent away changes at the positions where it is on: how many these are, the
    mean of its value, of KL(clean || ablated), of the change of the next token's cross-entropy
    and, token by token, of the log-probability."""

    count: int
    value: float
    kl: float
    loss: float
    change_V: Float64[Tensor, " v"]


def study_ablate(config: AblateConfig) -> dict[str, Any]:
    """Take latents away, each by itself; print tables, and return the figures.

    Raises children of TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    keep_freed_memory()
    folder = find_run(config.run, config.home)
    trained = read_config(folder)
    site = one_site({folder: trained})
    store = store_of_run(folder, config.home, config.store)
    subject = language_subject_of(store, site, config.subject)
    check_causal(subject, "ablate")
    sae = load_sae(folder).to(device)
    _check_latents(config.latent, sae)
    subject.module.to(device)
    if config.inputs:
        text = given_text(config.inputs, store, subject, config.limit, config.home, device)
    else:
        text = held_out_text(store, held_out_share([trained]), config.limit)
    found = {}
    for latent in config.latent:
        told = ablated(subject, site, sae, latent, text, config.batch_size, device)
        found[str(latent)] = figures = _figures(told, subject, config.tokens)
        print(_table(latent, figures), flush=True)
    return {
        "run": folder.resolve().name,
        "site": site,
        "text": text.source,
        "contexts": len(text.tokens_BT),
        "latents": found,
        "seconds": round(time.monotonic() - began, 3),
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
    """x' = x - z_i d_i at every position that is kept, all of a context at once, so that what an
    earlier firing did to a later one is gone, too. The rest of x, and what the dictionary
    does not explain of it, stays."""
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


def _check_latents(latents: Sequence[int], sae: SAE) -> None:
    for latent in latents:
        if not 0 <= latent < sae.latents:
            raise ConfigError(
                f"--latent is from 0 to {sae.latents - 1}, the latents of this run, and not "
                f"{latent}."
            )


def _figures(told: Ablated, subject: LanguageSubject, tokens: int) -> dict[str, Any]:
    ranked_V = told.change_V.argsort()
    shown = min(tokens, len(ranked_V)) if told.count else 0

    def listed(ranked: Tensor) -> list[dict[str, Any]]:
        return [
            {"token": subject.tokenizer.convert_ids_to_tokens(v), "change": float(told.change_V[v])}
            for v in ranked[:shown].tolist()
        ]

    return {
        "positions": told.count,
        "value": told.value,
        "kl": told.kl,
        "loss": told.loss,
        "falls": listed(ranked_V),
        "rises": listed(ranked_V.flip(0)),
    }


def _table(latent: int, figures: dict[str, Any]) -> str:
    if not figures["positions"]:
        return f"latent {latent} is on at no position of this text.\n"
    head = (
        f"latent {latent}: on at {figures['positions']:,} positions, {figures['value']:.3g} in the "
        f"mean; without it KL {figures['kl']:.4f}, cross-entropy {figures['loss']:+.4f}\n"
    )
    rows = [["falls", "log p", "rises", "log p"]]
    for falls, rises in zip(figures["falls"], figures["rises"], strict=True):
        told = [(one["token"], f"{one['change']:+.3f}") for one in (falls, rises)]
        rows.append([*told[0], *told[1]])
    return head + columns(rows) + "\n"
