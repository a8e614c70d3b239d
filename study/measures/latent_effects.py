"""What removing a latent changes further on in a vision network, beside random directions.

Removed is x' = x - z d at every position, where z is the latent's value and d its decoder row. The
control removes as much elsewhere: x' = x - z ||d|| d_j / ||d_j|| for the decoder rows d_j of other
latents, so positions and lengths are the same and only the direction differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
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


@final
@dataclass(frozen=True)
class Effect:
    """An effect of removing a latent and the same for the random directions.

    `chance` holds the latent's effect as `observed`, and the mean and range over the directions.
    """

    chance: Chance
    images: int
    """Number of images on which the latent is active."""


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


@torch.inference_mode()
def tuning_effect(
    subject: Subject,
    site: str,
    downstream: str,
    field: ReceptiveField,
    dictionary: SAE,
    latent: int,
    directions_RD: Float[Tensor, "r d"],
    images_BCHW: Float[Tensor, "b c h w"],
    units: Sequence[int],
) -> Effect:
    """The fraction of the response of downstream units that is lost, summed over images and units.

    `images_BCHW` are preprocessed drawn curves, `field` that of the downstream site's cell, and
    `units` its curve detectors for these curves. A positive fraction is a loss. P is the fraction
    of directions whose removal costs as much or more.
    """
    site_names = site_modules(subject, [site])[site]
    (name,) = _one_module(subject, downstream)
    with exact_arithmetic(), splicing(subject.module, site_names, name) as splice:

        def response(parts: dict[str, Tensor]) -> float:
            acts_BHWD = as_grid(splice.run(images_BCHW, parts))
            return float(acts_BHWD[:, *field.cell][:, list(units)].double().clamp(min=0).sum())

        parts = splice.read(images_BCHW)
        removed = Removed(dictionary, latent, to_vectors(parts))
        clean = response({})
        if clean <= 0:
            return Effect(compare(0.0, np.zeros(len(directions_RD)), large=True), 0)
        lost = [
            1 - response(to_parts(changed_ND, parts)) / clean
            for changed_ND in removed.along(directions_RD)
        ]
    active = removed.active(len(images_BCHW))
    return Effect(compare(lost[0], np.array(lost[1:]), large=True), int(active.sum()))


@torch.inference_mode()
def answer_effect(
    subject: Subject,
    site: str,
    dictionary: SAE,
    latent: int,
    directions_RD: Float[Tensor, "r d"],
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
            removed = Removed(dictionary, latent, to_vectors(parts))
            clean_BV = torch.log_softmax(first_tensor(splice.run(x_BCHW, {})).double(), dim=-1)
            right_B = (
                clean_BV.argmax(dim=-1) if labels_B is None else labels_B[start:][: len(x_BCHW)]
            )
            before = _in_top5(clean_BV, right_B)
            changes, losses = [], []
            for changed_ND in removed.along(directions_RD):
                logits_BV = splice.run(x_BCHW, to_parts(changed_ND, parts))
                after_BV = torch.log_softmax(logits_BV.double(), dim=-1)
                changes.append(float((clean_BV.exp() * (clean_BV - after_BV)).sum()))
                losses.append(before - _in_top5(after_BV, right_B))
            kl.append(torch.tensor(changes))
            top5.append(torch.tensor(losses, dtype=torch.float64))
            count += int(removed.active(len(x_BCHW)).sum())
    effects = []
    for sums in (kl, top5):
        mean_R = torch.stack(sums).double().sum(dim=0).numpy() / max(len(images_BCHW), 1)
        effects.append(Effect(compare(float(mean_R[0]), mean_R[1:], large=True), count))
    return effects[0], effects[1]


@final
class Removed:
    """The vectors [N, D] of a site without one latent, or with as much removed elsewhere."""

    def __init__(self, dictionary: SAE, latent: int, x_ND: Float[Tensor, "n d"]) -> None:
        self._x_ND = x_ND
        self._z_N = dictionary.encode(x_ND.float())[:, latent]
        self._row_D = dictionary.W_dec[latent]

    def active(self, images: int) -> Tensor:
        """For each image, True if the latent is active anywhere in it."""
        return (self._z_N.reshape(images, -1) > 0).any(dim=1)

    def along(self, directions_RD: Float[Tensor, "r d"]) -> Iterator[Float[Tensor, "n d"]]:
        """x - z d, then the same length removed along each unit direction."""
        yield self._x_ND - (self._z_N[:, None] * self._row_D).to(self._x_ND.dtype)
        length = self._row_D.norm()
        for direction_D in directions_RD:
            yield self._x_ND - (self._z_N[:, None] * length * direction_D).to(self._x_ND.dtype)


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
