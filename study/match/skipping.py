"""Skip a layer: put the code of the layer before, decoded by the matched latents, in its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.language_splice import TokenBatch, kept_mean, next_token_sums
from tendril.models.sites.splice import (
    CLEAN,
    MEAN,
    Reconstruction,
    Substitute,
    ablating,
    splicing,
    to_vectors,
)
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from ..core.language_text import JudgedText
from .findings import COPIED, MATCHED, OWN, RANDOM

SEED = 0


@final
@dataclass(frozen=True)
class Skip:
    """Two successive layers, their dictionaries, the partner of each latent, and the scale theta
    of each latent that was folded into its weights."""

    sites: tuple[str, str]
    saes: tuple[SAE, SAE]
    partner_S: Int[np.ndarray, " s"]
    scales: tuple[Float[np.ndarray, " s"], Float[np.ndarray, " t"]]


@torch.inference_mode()
def skipped(
    subject: LanguageSubject, skip: Skip, text: JudgedText, size: int, device: torch.device
) -> dict[str, Any]:
    """Cross-entropy of the model with the later site as it is, and replaced, at all kept positions.

    `own code`: by its own dictionary's reconstruction. `matched`: by sum_i z_i theta_p(i) / theta_i
    d_p(i) + b_dec, with z the code of the layer before and p(i) the partner of latent i. Controls:
    random partners, the vectors of the layer before as they are, and the mean.
    """
    first, second = (site_modules(subject, [site])[site] for site in skip.sites)
    earlier = _earlier(subject, first, text, size, device)
    held = Held(earlier)
    draws = np.random.default_rng(SEED)
    shuffled = skip.partner_S.copy()
    shuffled[shuffled >= 0] = draws.permutation(shuffled[shuffled >= 0])
    mean_D = kept_mean(subject.module, second, text.batches(size, device, "mean of the site"))
    substitutes: dict[str, Substitute] = {
        OWN: Reconstruction(skip.saes[1].to(device)),
        MATCHED: held.through(_decoder(skip, skip.partner_S, device)),
        RANDOM: held.through(_decoder(skip, shuffled, device)),
        COPIED: held.through(lambda x_ND: x_ND),
        MEAN: ablating(mean_D),
    }
    batches = held.follow(text.batches(size, device, f"skip {skip.sites[1]}"))
    sums = next_token_sums(subject.module, second, substitutes, batches, 1)
    clean = sums[CLEAN].means()["cross_entropy"]
    found: dict[str, Any] = {"first": skip.sites[0], "second": skip.sites[1]}
    found[CLEAN] = round(clean, 4)
    for name in substitutes:
        found[name] = round(sums[name].means()["cross_entropy"] - clean, 4)
    return found


@final
class Held:
    """The kept vectors of the earlier site in the batch that is being scored."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts
        self._number = -1

    def follow(self, batches: Iterator[TokenBatch]) -> Iterator[TokenBatch]:
        """The batches, in the order in which the vectors were read."""
        for number, batch in enumerate(batches):
            self._number = number
            yield batch

    def through(self, of: Substitute) -> Substitute:
        """A substitute that is a function of the earlier site's vectors."""
        return lambda x_ND: of(self._parts[self._number].to(x_ND))


def _earlier(
    subject: LanguageSubject,
    names: tuple[str, ...],
    text: JudgedText,
    size: int,
    device: torch.device,
) -> list[Tensor]:
    """The kept vectors of a site, batch by batch."""
    found = []
    with splicing(subject.module, names) as splice:
        for batch in text.batches(size, device, "layer before"):
            x_ND = to_vectors(splice.read(batch.tokens_BT))[batch.kept_BT.flatten()]
            found.append(x_ND.float().clone())
    return found


def _decoder(skip: Skip, partner_S: Int[np.ndarray, " s"], device: torch.device) -> Substitute:
    """The later layer's vectors from the earlier layer's."""
    first, second = (sae.to(device) for sae in skip.saes)
    known = np.flatnonzero(partner_S >= 0)
    scale_S, scale_T = (np.where(one > 0, one, 1.0) for one in skip.scales)
    ratio = torch.from_numpy(scale_T[partner_S[known]] / scale_S[known]).float().to(device)
    rows_SD = torch.zeros(first.latents, second.width, device=device)
    rows_SD[torch.from_numpy(known)] = (
        second.W_dec[torch.from_numpy(partner_S[known])] * ratio[:, None]
    )

    def decoded(x_ND: Tensor) -> Tensor:
        found: Tensor = first.encode(x_ND) @ rows_SD + second.b_dec
        return found

    return decoded
