"""The figures of steering in words and as tables for the terminal."""

from collections.abc import Mapping
from typing import Any

from tendril.data.store.tables import columns

Figures = Mapping[str, Any]
COHERENT = 1.5  # KL in nats above which text is not compared, unless all strengths exceed it


def best(figures: Figures) -> dict[str, Any]:
    """The latent and strength with the largest gain over the unedited network, beyond that of
    random directions, as scalars for the command's JSON. The gain is that of the fraction of the
    latent's own tokens, or of the probability of its own classes. Of text only strengths count
    whose KL is at most COHERENT, if there are any."""
    found: dict[str, Any] = {"best_latent": None, "best_strength": None, "best_gain": None}
    text = "prompts" in figures
    for latent, one in figures["latents"].items():
        mild = [step for step in one["strengths"] if text and step["latent"]["kl"] <= COHERENT]
        for step in mild or one["strengths"]:
            here, chance = own(step["latent"]), own(step["random"])
            if here is None or chance is None:
                continue
            gain = here - max(chance, own(one["unedited"]) or 0.0)
            if found["best_gain"] is None or gain > found["best_gain"]:
                found = {
                    "best_latent": int(latent),
                    "best_strength": step["strength"],
                    "best_gain": gain,
                }
    return found


def own(figures: Mapping[str, float | None]) -> float | None:
    """The figure that a latent is judged by: its own tokens (those at the peaks of its activating
    examples and those that follow), or its own classes."""
    return figures["own"] if "own" in figures else figures["either"]


def headline(figures: Figures) -> str:
    """The best latent and its figures in a sentence."""
    latent, strength = figures["best_latent"], figures["best_strength"]
    if latent is None:
        return "No continuation holds a token, so nothing can be compared."
    one = figures["latents"][str(latent)]
    step = next(s for s in one["strengths"] if s["strength"] == strength)
    values = (own(step["latent"]), own(one["unedited"]), own(step["random"]))
    if "prompts" in figures:
        made, plain, chance = (f"{100 * (value or 0):.0f} %" for value in values)
        what = f"the latent's own tokens are {made} of the continuations"
    else:
        made, plain, chance = (f"{value or 0:.2g}" for value in values)
        what = f"the probability of the latent's own classes is {made}"
    return (
        f"Latent {latent} at {strength:g} times its maximum: {what}, {plain} unedited and {chance} "
        f"along random directions; KL {step['latent']['kl']:.3g} against "
        f"{step['random']['kl']:.3g} nats."
    )


def terminal_table(figures: Figures) -> str:
    """A row a latent, direction and strength."""
    text = "prompts" in figures
    names = TEXT if text else IMAGES
    rows = [["latent", "strength", "direction", *names.values()]]
    for latent, one in figures["latents"].items():
        rows.append([latent, "", "unedited", *_cells(one["unedited"], names)])
        for step in one["strengths"]:
            for direction in ("latent", "random"):
                strength = f"{step['strength']:g}"
                rows.append([latent, strength, direction, *_cells(step[direction], names)])
    return columns(rows)


TEXT = {
    "peak": "peak tokens",
    "following": "following tokens",
    "either": "either",
    "promoted": "promoted",
    "active": "active",
    "surprise": "surprise",
    "kl": "KL",
    "loss": "change of CE",
}
IMAGES = {
    "own": "own classes",
    "kept": "first answer",
    "changed": "answers changed",
    "kl": "KL",
}


def _cells(figures: Mapping[str, float | None], names: Mapping[str, str]) -> list[str]:
    return [cell(figures.get(name)) for name in names]


def cell(value: float | None) -> str:
    """A number in a table; a dash if there is none."""
    return "-" if value is None else f"{value:.3f}"
