"""What feature patching finds: a curve for each kind of features and each order of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tendril.models.subjects.language import LanguageSubject

from ..measures.acdc import kept_for_all, kept_for_each, order_of, thresholds
from ..measures.activation_patching import (
    Curve,
    Features,
    Pairs,
    Patching,
    by_attribution,
    curve,
    greedily,
    greedily_each,
)
from .config import PatchingConfig

PCA, RANDOM = "pca", "random"
FRACTIONS = ("50%", "80%")  # of the KL that changing the whole site removes
Z95 = 1.96  # of the normal distribution
ORDERS = {
    "acdc": "ACDC, one order for all",
    "own_acdc": "ACDC, each pair its own",
    "greedy": "greedy, one order for all",
    "own_greedy": "greedy, each pair its own",
    "attribution": "attribution, one order for all",
    "own_attribution": "attribution, each pair its own",
}


@final
@dataclass(frozen=True)
class Findings:
    """The JSON object of result.json, and some pairs of prompts as examples."""

    figures: dict[str, Any]
    examples: Sequence[tuple[str, str]]


def curves_of(
    subject: LanguageSubject,
    site: str,
    parts: tuple[Pairs, Pairs],
    features: Features,
    config: PatchingConfig,
) -> dict[str, Curve]:
    """A curve for each order of the features.

    `parts` are the pairs that decide the shared orders and the pairs that curves are measured on;
    each pair's own order is decided by that pair.
    """
    fitted, reported = (
        Patching(subject, site, part, features, config.positions, config.batch_size)
        for part in parts
    )
    shared_F = by_attribution(fitted)
    own_PF = reported.gain_PF.argsort(dim=1, descending=True, stable=True)
    curves = {
        "attribution": curve(reported, shared_F, config.features),
        "own_attribution": curve(reported, own_PF, config.features),
    }
    if config.acdc:
        tau_Q = thresholds(fitted, config.acdc)
        shared_F = order_of(kept_for_all(fitted, tau_Q), fitted.size_PF.mean(dim=0))
        own_PF = order_of(kept_for_each(reported, tau_Q), reported.size_PF)
        curves["acdc"] = curve(reported, shared_F, config.features)
        curves["own_acdc"] = curve(reported, own_PF, config.features)
    if config.greedy:
        chosen_F = greedily(fitted, config.candidates, config.greedy)
        each_PF = greedily_each(reported, config.candidates, config.greedy)
        curves["greedy"] = curve(reported, chosen_F, config.greedy)
        curves["own_greedy"] = curve(reported, each_PF, config.greedy)
    return curves


def curve_figures(one: Curve, whole_P: Float[np.ndarray, " p"], seed: int) -> dict[str, Any]:
    """A curve as JSON values; for each of FRACTIONS the features needed, a 95 % interval of that
    number over pairs, and the size of their edit.

    `whole_P` is the KL of each pair that remains with the whole site changed.
    """
    parts = {text: int(text.rstrip("%")) / 100 for text in FRACTIONS}
    whole = float(whole_P.mean())
    needed = {text: one.needed(part, whole) for text, part in parts.items()}
    return {
        "kl": list(one.kl),
        "size": list(one.size),
        "needed": needed,
        "interval": {t: list(one.interval(part, whole_P, seed)) for t, part in parts.items()},
        "edit": {text: None if n is None else one.size[n] for text, n in needed.items()},
    }


def answer_figures(patching: Patching, subject: LanguageSubject, pairs: Pairs) -> dict[str, float]:
    """KL with nothing and with the whole site changed, and how often the model prefers the right
    answer to that of the pair's other prompt. Any features serve: the whole site has none."""
    whole_PTD = patching.whole_PTD
    right_P2 = prefers_right(subject, pairs)
    return {
        "kl_before": float(patching.kl(torch.zeros_like(whole_PTD)).mean()),
        "kl_whole": float(patching.kl(whole_PTD).mean()),
        "size_whole": float(whole_PTD.flatten(1).norm(dim=1).mean()),
        "right_base": float(right_P2[:, 0].float().mean()),
        "right_counterfactual": float(right_P2[:, 1].float().mean()),
    }


@torch.no_grad()
def prefers_right(subject: LanguageSubject, pairs: Pairs) -> Bool[Tensor, "p 2"]:
    """True where the model prefers the right answer to that of the pair's other prompt, for the
    base and for the counterfactual prompt."""
    rows = torch.arange(len(pairs), device=pairs.last_P.device)
    found = []
    for side, prompts_PT in enumerate((pairs.base_PT, pairs.counter_PT)):
        logits_PV = subject.module(prompts_PT).logits[rows, pairs.last_P]
        answer_P2 = logits_PV.gather(1, pairs.answers_P2)
        found.append(answer_P2[:, side] > answer_P2[:, 1 - side])
    return torch.stack(found, dim=1)


def ability(subject: LanguageSubject, swapped: Pairs) -> dict[str, Any]:
    """Can the model do the task: of the two names in a prompt, does it prefer the one that does not
    speak?

    `swapped` are pairs in which the other one speaks. Chance is a half; a 95 % interval (Wilson) of
    the fraction over the prompts of all pairs is given, and the model `can` if it lies above.
    """
    right = prefers_right(subject, swapped).flatten()
    count, fraction = len(right), float(right.float().mean())
    middle = (fraction + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    spread = fraction * (1 - fraction) / count + Z95**2 / (4 * count**2)
    half = Z95 * spread**0.5 / (1 + Z95**2 / count)
    return {
        "prompts": count,
        "right": fraction,
        "low": middle - half,
        "high": middle + half,
        "can": middle - half > 0.5,
    }
