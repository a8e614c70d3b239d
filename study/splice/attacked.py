"""Splicing under attack: accuracies of the network, of each run, and of controls of equal error."""

from collections.abc import Mapping
from typing import Any

import torch

from tendril.models.attacks import Attack, fgsm
from tendril.models.dictionaries.sae import SAE
from tendril.models.epsilon import check_epsilon
from tendril.models.sites.splice import Substitute
from tendril.models.subjects.subject import Subject

from ..core.image_batches import ImageBatches
from ..measures.spliced_attacks import (
    NETWORK,
    SiteMoments,
    attack_defences,
    reconstructing,
)
from .config import SpliceConfig

CONTROLS = ("PCA", "noise")
WAYS = {
    "through": "through it",
    "straight_through": "straight-through",
    "transferred": "transferred",
}


def chosen_attack(config: SpliceConfig, pixels: int) -> Attack | None:
    """The attack that a config asks for; None for none. Raises ConfigError for an epsilon of
    another scale than pixels in 0..1."""
    if config.attack == "none":
        return None
    check_epsilon(config.epsilon, config.norm, pixels)
    if config.attack == "fgsm":
        return fgsm(config.epsilon, config.norm)
    return Attack(config.norm, config.epsilon, config.attack_steps)


def attack_figures(
    attack: Attack,
    subject: Subject,
    site: str,
    dictionaries: Mapping[str, SAE],
    fvu: Mapping[str, float],
    batches: ImageBatches,
) -> dict[str, Any]:
    """Accuracies clean and under every way of attacking.

    Beside each run stand PCA with the fewest components whose FVU is at most the run's, and
    Gaussian noise of the run's error. Both are fitted to the site's vectors of these very images.
    """
    moments = SiteMoments.of(subject, site, (rgb for rgb, _ in batches.rgb("mean, covariance")))
    defences: dict[str, Substitute] = {}
    components: dict[str, int] = {}
    for number, (name, dictionary) in enumerate(dictionaries.items()):
        project, components[name] = moments.projection(fvu[name])
        defences[name] = reconstructing(dictionary.requires_grad_(False))
        defences[f"{name} PCA"] = project
        defences[f"{name} noise"] = moments.noise(fvu[name], number)
    with torch.no_grad():  # attacks enable gradients themselves
        found = attack_defences(subject, site, defences, batches.rgb("attack"), attack)
    return {
        "norm": attack.norm,
        "epsilon": attack.epsilon,
        "steps": attack.steps,
        "network": found[NETWORK].figures(),
        "runs": {
            name: {
                "run": found[name].figures(),
                "PCA": found[f"{name} PCA"].figures() | {"components": components[name]},
                "noise": found[f"{name} noise"].figures(),
            }
            for name in dictionaries
        },
    }


def attack_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """A row the network, each run and each control."""
    rows = [["site", "clean", *WAYS.values(), "under all", "gradients"]]
    rows.append(_row("as it is", figures["network"]))
    for name, by in figures["runs"].items():
        rows.append(_row(name, by["run"]))
        rows.append(_row(f"PCA, {by['PCA']['components']} components", by["PCA"]))
        rows.append(_row("noise", by["noise"]))
    return rows


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    ways = [f"{one[way]:.3f}" if way in one else "" for way in WAYS]
    return [name, f"{one['clean']:.3f}", *ways, f"{one['worst']:.3f}",
            "masked" if one["masked"] else ""]  # fmt: skip


def attack_sentence(figures: Mapping[str, Any]) -> str:
    """Whether any run resists more than the network and than its controls, in words."""
    network = figures["network"]
    best = max(figures["runs"], key=lambda name: float(figures["runs"][name]["run"]["worst"]))
    by = figures["runs"][best]
    worst = {name: by[name]["worst"] for name in ("run", *CONTROLS)}
    error = 2 * (0.5 / max(network["images"], 1)) ** 0.5  # two errors of a difference, at most
    start = (
        f"Under {figures['norm']} {figures['epsilon']:.3g} the network as it is answers "
        f"{network['worst']:.3f} of {network['images']:,} images rightly (clean "
        f"{network['clean']:.3f}), and with {best} {worst['run']:.3f} (clean "
        f"{by['run']['clean']:.3f}) under the strongest of three ways to attack; PCA of the same "
        f"error {worst['PCA']:.3f}, noise {worst['noise']:.3f}."
    )
    gain = worst["run"] - max(network["worst"], *(worst[name] for name in CONTROLS))
    if gain > error:
        return f"{start} The run resists more than the network and both controls."
    if worst["run"] - network["worst"] > error:
        return f"{start} The run resists more than the network, but not more than its controls."
    return f"{start} That is no clear gain."
