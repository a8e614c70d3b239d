"""What the pages of text and of images have in common: charts, tiles, and how it was made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ..page.charts import Axis, Series, chart
from .words import cell, own

Figures = Mapping[str, Any]
EDIT = (
    "At each vector x of the site, z = encode(x), and x is replaced by x' = x + (x_hat(z') - "
    "x_hat(z)): what the dictionary does not explain stays as it is. "
)
METHOD = {
    "add": "To the latent s is added, z' = z + s, which is x' = x + s d with d the latent's "
    "decoder row. ",
    "set": "The latent is set to s (clamped), z' = s, wherever the edit applies. ",
}
UNITS = "A strength of 1 means that s is the latent's maximum activation in the store."
RANDOM = (
    "Random directions have the norm of the decoder row and take its place; the encoder stays, so "
    "the same s applies. Figures along random directions are means over them; what is shown of one "
    "is of the first."
)


def edit_words(figures: Figures) -> str:
    """The edit in an equation, its units, and its source."""
    return EDIT + METHOD[figures["method"]] + UNITS


def strength_chart(findings: Figures, one: Figures, name: str, axis: str) -> Markup:
    """A figure against strength: of the latent, of random directions, and unedited.

    Without an edit KL is zero. Where s is added, a strength of 0 is no edit, and is a point of the
    curves.
    """
    unedited = _number({"kl": 0.0, **one["unedited"]}, name)
    added = findings["method"] == "add"
    series = []
    for direction, key in (("latent", "latent"), ("random directions", "random")):
        points = {float(step["strength"]): _number(step[key], name) for step in one["strengths"]}
        at = sorted({0.0: unedited, **points}.items() if added else points.items())
        series.append(Series(direction, np.array([x for x, _ in at]), np.array([y for _, y in at])))
    if name != "kl":
        ends = np.array([series[0].x.min(), series[0].x.max()])
        series.append(Series("unedited", ends, np.full(2, unedited), dashed=True, colour=2))
    return chart(series, Axis("strength"), Axis(axis))


def _number(figures: Mapping[str, float | None], name: str) -> float:
    value = figures[name]
    return float("nan") if value is None else value


def summary(figures: Figures, names: Sequence[str]) -> list[list[str]]:
    """A row a latent and strength: figures of the latent, and its own ones of the controls."""
    rows = []
    for latent, one in figures["latents"].items():
        for step in one["strengths"]:
            rows.append(
                [
                    latent,
                    f"{step['strength']:g}",
                    cell(own(step["latent"])),
                    cell(own(one["unedited"])),
                    cell(own(step["random"])),
                    *(text for name in names for text in
                      (cell(step["latent"][name]), cell(step["random"][name]))),
                ]
            )  # fmt: skip
    return rows


def strength_word(strength: float, value: float) -> str:
    """A strength, and the number that it stands for."""
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{strength:+g} times max (s = {shown})"
