"""What feature patching finds: a curve for each kind of features and each order of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from tendril.models.subjects.language import LanguageSubject

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

PCA = "pca"
FRACTIONS = ("50%", "80%")  # of the KL that changing the whole site removes
ORDERS = {
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
    if config.greedy:
        chosen_F = greedily(fitted, config.candidates, config.greedy)
        each_PF = greedily_each(reported, config.candidates, config.greedy)
        curves["greedy"] = curve(reported, chosen_F, config.greedy)
        curves["own_greedy"] = curve(reported, each_PF, config.greedy)
    return curves


def curve_figures(one: Curve, whole: float) -> dict[str, Any]:
    """A curve as JSON values, with the features needed for each of FRACTIONS.

    `whole` is the KL that remains with the whole site changed.
    """
    needed = {text: one.needed(int(text.rstrip("%")) / 100, whole) for text in FRACTIONS}
    return {"kl": list(one.kl), "size": list(one.size), "needed": needed}


def answer_figures(
    subject: LanguageSubject, site: str, pairs: Pairs, features: Features, config: PatchingConfig
) -> dict[str, float]:
    """KL with nothing and with the whole site changed, and how often the model prefers the right
    answer to that of the pair's other prompt. Any features serve: the whole site has none."""
    patching = Patching(subject, site, pairs, features, config.positions, config.batch_size)
    rows, whole_PTD = torch.arange(len(pairs)), patching.whole_PTD
    found = {
        "kl_before": float(patching.kl(torch.zeros_like(whole_PTD)).mean()),
        "kl_whole": float(patching.kl(whole_PTD).mean()),
        "size_whole": float(whole_PTD.flatten(1).norm(dim=1).mean()),
    }
    for side, (name, prompts_PT) in enumerate(
        {"right_base": pairs.base_PT, "right_counterfactual": pairs.counter_PT}.items()
    ):
        with torch.no_grad():
            logits_PV = subject.module(prompts_PT).logits[rows, pairs.last_P]
        answer_P2 = logits_PV.gather(1, pairs.answers_P2)
        found[name] = float((answer_P2[:, side] > answer_P2[:, 1 - side]).float().mean())
    return found
