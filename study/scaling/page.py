"""What the page of scaling shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..page.charts import Axis, Series, chart
from .curve_page import curves_context, curves_headline, curves_table
from .findings import Scaling
from .mixture_section import mixtures_context, staircase
from .model import DECADES, REGIMES, Line
from .toys_page import toys_context
from .wild_page import wild_context

MODEL = ("beta", "regime", "features of 1 latent", "features of N latents", "D / N",
         "exponent of D (theory)", "exponent of L (theory)")  # fmt: skip


def headline(figures: Mapping[str, Any]) -> str:
    """The figures that matter, in a sentence or two."""
    parts = []
    if model := figures["model"]:
        last = min(model, key=lambda line: line["beta"])
        parts.append(
            f"At alpha {figures['alpha']:g} and beta {last['beta']:g}, {last['latents']:,} latents "
            f"serve {last['features']:,} features ({last['efficiency']:.2%})."
        )
    found = [one for one in figures["runs"] if one["manifolds_found"] != ""]
    if many := [one for one in found if one["manifolds"] > 1]:
        most = max(many, key=lambda one: one["alive"])
        parts.append(
            f"{most['alive']:,} latents of {most['run']} find {most['manifolds_found']} of "
            f"{most['manifolds']:,} manifolds."
        )
    if wild := [one for one in figures["runs"] if one["manifolds"] == "" and one["slope"] != ""]:
        steepest = min(wild, key=lambda one: one["slope"])
        parts.append(
            f"The steepest slope of firing frequency against rank is {steepest['slope']:.2f} "
            f"({steepest['run']})."
        )
    parts += curves_headline(figures)
    return " ".join(parts) or f"{figures['dictionaries']} dictionaries were read."


def table(figures: Mapping[str, Any]) -> str:
    """Tables for the terminal."""
    parts = []
    if figures["model"]:
        rows = [
            (
                f"{line['beta']:g}",
                REGIMES[line["regime"]],
                f"{line['features']:,}",
                f"{line['efficiency']:.2%}",
                f"{line['features_exponent']:.3f} ({line['features_exponent_expected']:.3f})",
                f"{line['loss_exponent']:.3f} ({line['loss_exponent_expected']:.3f})",
            )
            for line in figures["model"]
        ]
        head = ("beta", "regime", "D", "D / N", "exponent of D (theory)", "of L (theory)")
        parts.append(columns([head, *rows]))
    if figures["runs"]:
        names = ("run", "alive", "fvu", "slope", "nearest_cosine", "dimension", "manifolds_found")
        rows_of_runs = [[str(one[name]) for name in names] for one in figures["runs"]]
        parts.append(columns([[name.replace("_", " ") for name in names], *rows_of_runs]))
    parts += curves_table(figures)
    return "\n\n".join(parts)


def context(found: Scaling) -> dict[str, Any]:
    """What page.html shows."""
    return {
        "lead": (
            "A feature that is a manifold, such as curves of every orientation, can absorb any "
            "number of latents. Whether further latents find new features or tile the same ones "
            "more finely depends on how fast features get rare (alpha) and on how fast the loss "
            "of one falls with its latents (beta)."
        ),
        "model": model_context(found),
        "toys": toys_context(found.toys()),
        "mixtures": mixtures_context(found.mixtures),
        "wild": wild_context(found),
        "curves": curves_context(found),
    }


def model_context(found: Scaling) -> dict[str, Any] | None:
    """Table and charts of the model; None without it."""
    if not found.lines:
        return None
    largest = found.lines[0].found[-1].latents
    axis = Axis("latents N", log=True)
    per = [(line, np.array([float(one.latents) for one in line.found])) for line in found.lines]
    found_D = [
        Series(_beta(line), n, np.array([float(one.features) for one in line.found]))
        for line, n in per
    ]
    part = [
        Series(_beta(line), n, np.array([one.efficiency for one in line.found])) for line, n in per
    ]
    loss = [Series(_beta(line), n, np.array([one.loss for one in line.found])) for line, n in per]
    shared = [Series(_beta(line), *staircase(line.found[-1])) for line in found.lines]
    return {
        "alpha": f"{found.alpha:g}",
        "convention": "(n + 1)^-beta, L(0) = 1" if found.shifted else "n^-beta, L(0) = 2",
        "decades": DECADES,
        "largest": f"{largest:,}",
        "table": [_model_head(), *(_model_row(line) for line in found.lines)],
        "charts": [
            ("Features that have a latent", chart(found_D, axis, Axis("features D(N)", log=True))),
            (
                "Fraction of latents that find a feature",
                chart(part, axis, Axis("D(N) / N", log=True)),
            ),
            (
                f"How {largest:,} latents are shared out",
                chart(
                    shared,
                    Axis("feature, by falling frequency", log=True),
                    Axis("its latents", log=True),
                ),
            ),
            ("Loss", chart(loss, axis, Axis("L(N)", log=True))),
        ],
    }


def _beta(line: Line) -> str:
    return f"beta {line.beta:g}"


def _model_head() -> tuple[str, ...]:
    return ("beta", "regime", "features D", "D / N", "exponent of D (theory)",
            "exponent of L (theory)")  # fmt: skip


def _model_row(line: Line) -> list[str]:
    last = line.found[-1]
    return [
        f"{line.beta:g}",
        REGIMES[line.regime],
        f"{last.features:,}",
        f"{100 * last.efficiency:.2g} %",
        f"{line.features.slope:.3f} ({line.expected_features:.3f})",
        f"{line.loss.slope:.3f} ({line.expected_loss:.3f})",
    ]
