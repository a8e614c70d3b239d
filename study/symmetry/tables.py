"""The page's tables: findings in, cells for the template out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..measures.false_positives import interval
from ..measures.planted_scores import PlantedScores
from ..measures.stabilisers import CLASSES
from ..measures.symmetry_analysis import CHIRAL, RAW, RAW_CHIRAL, SymmetryAnalysis
from .findings import SHOWN_KINDS, SymmetryFindings

MOST_ROWS = 600
TRAINED = ("FVU (training)", "L0", "dead", "parameters", "time")
MEASURES = {
    "match": ("match", "median over planted families of the best cosine with a latent"),
    "match_chance": ("by chance", "the same with each latent's channels shuffled"),
    "curves": ("curves", "planted curves, over all orientations, that a latent represents"),
    "family_recall": ("families", "planted families that a latent represents"),
    "precision": ("precision", "latents that represent a planted feature"),
    "class_accuracy": ("classes", "represented families with the right class of symmetry"),
    "class_accuracy_all": ("all classes", "the same over all planted families, missed ones wrong"),
    "orientation_error": ("angle", "median error of orientation, over features with an axis"),
    "nmi": (
        "NMI",
        "normalised mutual information of found and planted families (tied: of all copies)",
    ),
    "nmi_chance": ("by chance", "the same for shuffled labels"),
    "ari": ("ARI", "adjusted Rand index of found and planted families"),
    "ari_all": ("ARI, all", "the same over all planted features, each missed one by itself"),
}
"""Measure of the planted features -> its column's head, and what it is."""


def class_slug(name: str) -> str:
    """The CSS class of a class of symmetry."""
    return "class-" + name.replace(" ", "-")


def class_table(findings: SymmetryFindings) -> dict[str, Any]:
    """The same in numbers: a row per run, a column per class."""
    analyses = (findings.analysis, *findings.controls)
    present = [name for name in CLASSES if any(one.counts().get(name) for one in analyses)]
    rows = []
    for one in analyses:
        counts = [str(one.counts().get(name, 0)) for name in present]
        cells = [*trained_cells(one), str(len(one.latents)), *counts]
        rows.append({"run": one.run, "about": one.about, "cells": cells})
    classes = [{"name": name, "slug": class_slug(name)} for name in present]
    return {"heads": (*TRAINED, "latents"), "classes": classes, "rows": rows}


def trained_cells(analysis: SymmetryAnalysis) -> list[str]:
    """The results of a run's training in the order of TRAINED; dashes where they are unknown."""
    result = analysis.trained
    if not result:
        return ["-"] * len(TRAINED)
    seen = result.get("fvu_train")
    return [
        f"{result['fvu']:.3f}" + ("" if seen is None else f" ({seen:.3f})"),
        f"{result['l0']:.1f}",
        f"{100 * result['dead']:.0f} %",
        f"{result['parameters']:,}",
        f"{result['seconds']:.0f} s",
    ]


RACE = {
    "silhouette": ("silhouette", "of held-out orbits, each assigned to its most active family"),
    "silhouette_chance": ("by chance", "the same with the assignments shuffled"),
    "agreement": (
        "class agreement",
        "members that have the class of symmetry of their head (* the copies of a tied latent have "
        "it by construction)",
    ),
    "agreement_chance": ("by chance", "two latents drawn at random that have the same class"),
    "stability": (
        "stability",
        "adjusted Rand index of the families to which two seeds assign the orbits (chance: 0)",
    ),
    "units": ("units", "adjusted Rand index with the assignment by families of units (chance: 0)"),
    "pose_error": (
        "turn",
        "mean error of the turn of an orbit that is decoded from the codes of its family (* near "
        "0 by construction: the codes of a tied latent turn with the orbit)",
    ),
    "pose_chance": ("by chance", "a quarter of the period of each family"),
    "families": ("families", "those to which an orbit is assigned"),
    "members": (
        "in families",
        "latents that share a family with another one (* all copies of tied latents do)",
    ),
    "fvu": ("FVU", "on the validation orbits; a dictionary of single vectors has a code for each"),
    "views": ("views", "elements of an orbit that the encoder reads"),
    "parameters": ("parameters", "of the dictionary"),
    "seconds": ("time", "of training, on a machine that may have done other things too"),
}
"""Measure of families -> its column's head, and what it is."""
GIVEN = ("agreement", "pose_error", "members")  # what tying decides, marked by a star
RATED = ("one reflection", "both", "half turn", "many turns")


def race_rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per method: the mean over its seeds and, in brackets, the least and largest value."""
    rows = []
    for method, found in figures["methods"].items():
        cells = [_race_cell(name, found) for name in RACE]
        rows.append({"method": method, "seeds": found["seeds"], "cells": cells})
    return rows


def _race_cell(name: str, found: Mapping[str, Any]) -> str:
    value = found.get(name)
    if value is None:
        return "one seed" if name == "stability" else "unknown"
    mean, low, high = value if isinstance(value, list) else (value, value, value)
    if name in ("families", "views", "parameters"):
        return f"{mean:,.0f}"
    unit = {"pose_error": "°", "pose_chance": "°", "seconds": " s"}.get(name, "")
    digits = 0 if name == "seconds" else 1 if unit else 2
    given = "*" if found["tied"] and name in GIVEN else ""
    text = f"{mean:.{digits}f}{unit}{given}"
    many = low != high and not name.endswith("chance")
    return f"{text} ({low:.{digits}f} to {high:.{digits}f})" if many else text


def terminal(figures: Mapping[str, Any]) -> str:
    """The rates of false positives, and the comparison of methods, as lines of text."""
    lines = []
    for source, found in figures["false_positives"].items():
        rates = ", ".join(
            f"{name} {_rate_text(found['rates'].get(name), found['total'])}"
            for name in RATED
            if not _keeps(source, name)
        )
        lines.append(f"{source} ({found['total']}): {rates}")
    race = figures.get("race", {"methods": {}})
    for row in race_rows(race):
        shown = zip(RACE.values(), row["cells"], strict=True)
        lines.append(f"{row['method']} ({row['seeds']} seeds)")
        lines.append("  " + "; ".join(f"{head} {cell}" for (head, _), cell in shown))
    return "\n".join(lines)


def rate_table(analysis: SymmetryAnalysis) -> dict[str, Any]:
    """Rates of each class among blocks that should have none, with their intervals."""
    sources = {
        RAW: "raw anchors that the nulls have not seen",
        RAW_CHIRAL: "the same, each frequency turned at random",
        CHIRAL: "the latents, each frequency turned at random",
    }
    rows = []
    for one in analysis.rates:
        cells = [
            "kept" if _keeps(one.source, name) else _rate_text(one.rate(name), one.total)
            for name in RATED
        ]
        rows.append({"source": sources[one.source], "total": one.total, "cells": cells})
    return {"heads": RATED, "rows": rows}


def _keeps(source: str, name: str) -> bool:
    """True for a class that blocks of a source have: random phases keep all turns."""
    return source != RAW and name in ("half turn", "many turns")


def _rate_text(rate: Sequence[float] | None, total: int) -> str:
    """A rate in per cent with its 95 % interval."""
    mean, low, high = rate or (0.0, *interval(0, total))
    return f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def planted_table(planted: PlantedScores) -> dict[str, Any]:
    """Scores against the planted features: a row per run, a column per measure."""
    rows = [
        {"run": run, "cells": [_score_cell(name, figures) for name in MEASURES]}
        for run, figures in planted.figures().items()
    ]
    return {"heads": [head for head, _ in MEASURES.values()], "rows": rows} | {
        "legend": list(MEASURES.values())
    }


def table_rows(findings: SymmetryFindings) -> list[dict[str, Any]]:
    """One line per latent, for those that fire most often."""
    often = np.argsort(-findings.analysis.frequency, kind="stable")[:MOST_ROWS]
    lines = []
    for row in sorted(int(r) for r in often):
        latent = findings.listing[row]
        irreps = {k.removeprefix("power_"): v for k, v in latent.items() if k.startswith("power_")}
        strongest = max((n for n in irreps if n != "A1"), key=lambda n: irreps[n], default="")
        fractions = [latent.get(f"fraction_{kind}") for kind in SHOWN_KINDS]
        angle = latent["orientation"]
        lines.append(
            {
                "latent": latent["latent"],
                "slug": class_slug(latent["class"]),
                "class": latent["class"],
                "name": latent["name"],
                "angle": angle,
                "figures": [
                    str(latent["family"]),
                    fixed_by(latent),
                    "" if angle is None else f"{angle:.1f}°",
                    f"{latent['fraction']:.2f}",
                    percent(latent["null"]),
                    *("" if value is None else f"{value:.2f}" for value in fractions),
                    f"{100 * latent['variation']:.0f} %",
                    strongest,
                    f"{100 * latent['frequency']:.2g} %",
                ],
            }
        )
    return lines


def fixed_by(latent: dict[str, Any]) -> str:
    """The kind of a latent's stabiliser, and whether its axes lie between those of the group."""
    between = " between" if latent["axis_class"] == "between" else ""
    return f"{latent['stabiliser']}{between}"


def percent(fraction: float | None) -> str:
    """A fraction in per cent; empty for None."""
    return "" if fraction is None else f"{100 * fraction:.0f} %"


def _score_cell(name: str, figures: Mapping[str, float | int | None]) -> str:
    value = figures.get(name)
    if value is None:
        return "-"
    if name == "orientation_error":
        return f"{value:.1f}°"
    if name == "curves":
        return f"{value:.0f} of {figures['curves_planted']}"
    whole = name in ("family_recall", "precision", "class_accuracy", "class_accuracy_all")
    return f"{100 * value:.0f} %" if whole else f"{value:.2f}"
