"""What removing latents changes further on in a vision network, beside a control.

One latent: removed is x' = x - z d at every position, where z is the latent's value and d its
decoder row. The control removes as much elsewhere: x' = x - z ||d|| d_j / ||d_j|| for the decoder
rows d_j of other latents, so positions and lengths are the same and only the direction differs.

Several latents together: x' = x - sum_i z_i d_i. The control removes as many other latents, each
about as frequent and as strong as the one that it stands for.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.hooks import as_grid
from tendril.models.sites.receptive import ReceptiveField
from tendril.models.sites.splice import first_tensor, splicing, to_parts, to_vectors
from tendril.models.subjects.subject import Subject, site_modules

from .gap_chance import Chance, compare
from .tuning import exact_arithmetic

IMAGES = 32  # at a time
ALIKE = 8
"""Other latents among which the match of a removed latent is drawn."""


@final
@dataclass(frozen=True)
class Effect:
    """An effect of removing latents, and that of the controls.

    `chance` holds the effect of what is examined as `observed`, and mean and range of the controls.
    """

    chance: Chance
    images: int
    """Number of images from which something is removed."""


def other_directions(
    dictionary: SAE, latents: Sequence[int], count: int, seed: int = 0
) -> Float[Tensor, "r d"]:
    """`count` unit decoder rows drawn from those of `latents`, without replacement.

    Raises ConfigError where there are fewer.
    """
    if len(latents) < count:
        raise ConfigError(
            f"--directions must be at most {len(latents)}, the other latents that are active; got "
            f"{count}. Lower it."
        )
    chosen = np.random.default_rng(seed).choice(np.asarray(latents), count, replace=False)
    rows_RD: Tensor = dictionary.W_dec.detach()[torch.from_numpy(chosen)]
    unit_RD: Tensor = rows_RD / rows_RD.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return unit_RD


def matched_sets(
    chosen: Sequence[int],
    others: Sequence[int],
    frequency_S: Float[np.ndarray, " s"],
    energy_S: Float[np.ndarray, " s"],
    draws: int,
    seed: int = 0,
) -> list[list[int]]:
    """`draws` sets of other latents, each a match for the latents of `chosen`.

    For each chosen latent one of the ALIKE nearest others is drawn, by the distance
    |log frequency| + |log energy| / 2 of differences, where energy is the mean of z^2 ||d||^2 over
    the vectors on which a latent is active. No latent is in a set twice. There must be
    as many others as chosen latents.
    """
    rng = np.random.default_rng(seed)
    place_S2 = np.stack([np.log(frequency_S + 1e-9), np.log(energy_S + 1e-30) / 2], axis=1)
    sets: list[list[int]] = []
    for _ in range(draws):
        left = list(others)
        one: list[int] = []
        for latent in rng.permutation(np.asarray(chosen)):
            apart = np.abs(place_S2[left] - place_S2[latent]).sum(axis=1)
            near = np.argsort(apart, kind="stable")[:ALIKE]
            one.append(left.pop(int(rng.choice(near))))
        sets.append(one)
    return sets


class Removal(ABC):
    """Ways to remove something from vectors [N, D] of a site: the one examined, then controls."""

    @abstractmethod
    def variants(self, x_ND: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "n d"]]:
        """The vectors after each way, in order."""

    @abstractmethod
    def active(self, x_ND: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """True for each vector from which the first way removes something."""


@final
class OneLatent(Removal):
    """A latent, then as much along each unit direction."""

    def __init__(self, dictionary: SAE, latent: int, directions_RD: Float[Tensor, "r d"]) -> None:
        self._dictionary, self._latent = dictionary, latent
        row_D = dictionary.W_dec[latent]
        self._rows_RD = torch.cat([row_D[None], row_D.norm() * directions_RD.to(row_D)])

    def variants(self, x_ND: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "n d"]]:
        z_N = self._values(x_ND)
        for row_D in self._rows_RD:
            yield x_ND - (z_N[:, None] * row_D).to(x_ND.dtype)

    def active(self, x_ND: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        return self._values(x_ND) > 0

    def _values(self, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return self._dictionary.encode(x_ND.float())[:, self._latent]


@final
class LatentsTogether(Removal):
    """Each of some sets of latents, removed at once."""

    def __init__(self, dictionary: SAE, sets: Sequence[Sequence[int]]) -> None:
        self._dictionary, self._sets = dictionary, [list(one) for one in sets]

    def variants(self, x_ND: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "n d"]]:
        z_NS = self._dictionary.encode(x_ND.float())
        for chosen in self._sets:
            yield x_ND - (z_NS[:, chosen] @ self._dictionary.W_dec[chosen]).to(x_ND.dtype)

    def active(self, x_ND: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        active_N: Tensor = (self._dictionary.encode(x_ND.float())[:, self._sets[0]] > 0).any(dim=1)
        return active_N


@torch.inference_mode()
def tuning_effect(
    subject: Subject,
    site: str,
    downstream: str,
    field: ReceptiveField,
    removal: Removal,
    images_BCHW: Float[Tensor, "b c h w"],
    counted_BU: Bool[Tensor, "b u"],
) -> Effect:
    """The fraction of the response of downstream units that is lost, summed over images and units.

    `images_BCHW` are preprocessed drawn curves, `field` that of the downstream site's cell, and
    `counted_BU` says which units count for which image. A positive fraction is a loss. P is the
    fraction of controls that cost as much or more.
    """
    site_names = site_modules(subject, [site])[site]
    (name,) = _one_module(subject, downstream)
    responses: list[float] = []
    count = 0
    with exact_arithmetic(), splicing(subject.module, site_names, name) as splice:
        for start in range(0, len(images_BCHW), IMAGES):
            x_BCHW = images_BCHW[start : start + IMAGES]
            counts_BU = counted_BU[start : start + IMAGES].to(x_BCHW.device)

            def response(
                parts: dict[str, Tensor], x_BCHW: Tensor = x_BCHW, counts_BU: Tensor = counts_BU
            ) -> float:
                acts_BHWD = as_grid(splice.run(x_BCHW, parts))
                acts_BU = acts_BHWD[:, *field.cell].double().clamp(min=0)
                return float((acts_BU * counts_BU).sum())

            parts = splice.read(x_BCHW)
            x_ND = to_vectors(parts)
            found = [response({})]
            found += [response(to_parts(one_ND, parts)) for one_ND in removal.variants(x_ND)]
            responses = [a + b for a, b in zip(responses or [0.0] * len(found), found, strict=True)]
            count += int(removal.active(x_ND).reshape(len(x_BCHW), -1).any(dim=1).sum())
    clean, *others = responses
    if clean <= 0:
        return Effect(compare(0.0, np.zeros(len(others) - 1), large=True), 0)
    lost = [1 - other / clean for other in others]
    return Effect(compare(lost[0], np.array(lost[1:]), large=True), count)


@torch.inference_mode()
def answer_effect(
    subject: Subject,
    site: str,
    removal: Removal,
    images_BCHW: Float[Tensor, "b c h w"],
    labels_B: Int[Tensor, " b"] | None,
) -> tuple[Effect, Effect]:
    """KL(clean || ablated) in nats, and top-5 accuracy lost, as means over images.

    Without labels the network's own first answers count as right. Large effects are extreme.
    """
    names = site_modules(subject, [site])[site]
    kl: list[Float[Tensor, " r"]] = []
    top5: list[Float[Tensor, " r"]] = []
    count = 0
    with splicing(subject.module, names, subject.logits) as splice:
        for start in range(0, len(images_BCHW), IMAGES):
            x_BCHW = images_BCHW[start : start + IMAGES]
            parts = splice.read(x_BCHW)
            x_ND = to_vectors(parts)
            clean_BV = torch.log_softmax(first_tensor(splice.run(x_BCHW, {})).double(), dim=-1)
            right_B = (
                clean_BV.argmax(dim=-1)
                if labels_B is None
                else labels_B[start : start + len(x_BCHW)].to(clean_BV.device)
            )
            before = _in_top5(clean_BV, right_B)
            changes, losses = [], []
            for changed_ND in removal.variants(x_ND):
                logits_BV = splice.run(x_BCHW, to_parts(changed_ND, parts))
                after_BV = torch.log_softmax(logits_BV.double(), dim=-1)
                changes.append(float((clean_BV.exp() * (clean_BV - after_BV)).sum()))
                losses.append(before - _in_top5(after_BV, right_B))
            kl.append(torch.tensor(changes))
            top5.append(torch.tensor(losses, dtype=torch.float64))
            count += int(removal.active(x_ND).reshape(len(x_BCHW), -1).any(dim=1).sum())
    effects = []
    for sums in (kl, top5):
        mean_R = torch.stack(sums).double().sum(dim=0).numpy() / max(len(images_BCHW), 1)
        effects.append(Effect(compare(float(mean_R[0]), mean_R[1:], large=True), count))
    return effects[0], effects[1]


def _in_top5(log_BV: Float[Tensor, "b v"], right_B: Int[Tensor, " b"]) -> int:
    first_BK = log_BV.topk(min(5, log_BV.shape[1]), dim=-1).indices
    return int((first_BK == right_B[:, None].to(first_BK.device)).any(dim=1).sum())


def _one_module(subject: Subject, site: str) -> tuple[str, ...]:
    names = site_modules(subject, [site])[site]
    if len(names) != 1:
        raise ConfigError(
            f"--downstream must be a site of one module; {site} joins {len(names)}. Choose "
            f"{names[0]}, for example."
        )
    return names
