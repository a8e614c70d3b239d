"""What the page of outside inputs shows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..measures.outside_scores import operating_curve
from ..page.charts import Axis, Series, chart
from ..page.svg import data_url
from .config import OodConfig
from .findings import BASELINES, DETECTORS, INSIDE, LATENTS, RANDOM, UNITS, Outside
from .inputs import OodInputs

CURVES = 200  # points of an operating curve
CLEAR = 2.0  # standard errors above which a difference is called one
SIDE = 96  # pixels of a picture


def headline(figures: Mapping[str, Any]) -> str:
    """The figures that matter, in a sentence or two."""
    return (
        f"Profiles of latents tell {figures['sets']} "
        f"{'sets' if figures['sets'] > 1 else 'set'} of outside images with an AUROC of "
        f"{figures['auroc_latents']:.3f} (FPR95 {figures['fpr95_latents']:.2f}); {verdict(figures)}"
    )


def verdict(figures: Mapping[str, Any]) -> str:
    """Whether latents gain anything over the best baseline and the controls."""
    latents, best = figures["auroc_latents"], figures["auroc_best_baseline"]
    controls = (
        f"units {figures['auroc_units']:.3f}, random directions {figures['auroc_random']:.3f}"
    )
    name = f"the best baseline, {figures['best_baseline']}, reaches {best:.3f}"
    errors = [one["auroc_error"] for one in figures["records"] if one["detector"] == LATENTS]
    spread = CLEAR * float(np.sqrt(np.square(errors).sum())) / len(errors)
    if abs(latents - best) <= spread:
        return f"{name}; the difference is not clear. Profiles of controls: {controls}."
    word = "better" if latents > best else "worse"
    return f"{name}; latents do {word}. Profiles of controls: {controls}."


def terminal_table(figures: Mapping[str, Any]) -> str:
    """AUROC and FPR95 of each detector and set."""
    return columns(_rows(figures))


def _rows(figures: Mapping[str, Any]) -> list[list[str]]:
    by = {(one["detector"], one["outside"]): one for one in figures["records"]}
    sets = list(dict.fromkeys(outside for _, outside in by))
    rows = [["detector", *sets, "mean"]]
    for detector in DETECTORS:
        some = [by[detector, name] for name in sets]
        mean = (
            f"{np.mean([o['auroc'] for o in some]):.3f} ({np.mean([o['fpr95'] for o in some]):.2f})"
        )
        rows.append([detector, *(_cell(one) for one in some), mean])
    return rows


def _cell(one: Mapping[str, Any]) -> str:
    """AUROC with its range over dictionaries or else its error, and FPR95."""
    if one["dictionaries"] > 1:
        spread = f"{one['auroc_least']:.3f}-{one['auroc_most']:.3f}"
    else:
        spread = f"\N{PLUS-MINUS SIGN}{one['auroc_error']:.3f}"
    return f"{one['auroc']:.3f} {spread} ({one['fpr95']:.2f})"


def context(config: OodConfig, inputs: OodInputs, found: Outside) -> dict[str, Any]:
    """What page.html shows."""
    figures = found.figures()
    return {
        "lead": (
            "A network answers with one of its classes whatever it is shown. Can it be told from "
            "its activations that an image is unlike those it was trained on?"
        ),
        "numbers": [
            {"value": f"{figures[key]:.3f}", "of": "", "text": text}
            for key, text in (
                ("auroc_latents", "AUROC of profiles of latents"),
                (
                    "auroc_best_baseline",
                    f"AUROC of the best baseline, {figures['best_baseline']}",
                ),
                ("auroc_units", "AUROC of profiles of units"),
                ("auroc_random", "AUROC of profiles of random directions"),
            )
        ],
        "verdict": verdict(figures)[0].upper() + verdict(figures)[1:],
        "rows": _rows(figures),
        "several": len(found.runs) > 1,
        "charts": [(name, _curves(found, name)) for name in found.outside],
        "pictures": [
            (name, name == INSIDE, [_picture(one) for one in some])
            for name, some in found.pictures.items()
            if some
        ],
        "warning": found.remark,
        "method": _method(config, inputs, found),
    }


def _picture(one: Any) -> dict[str, str]:
    kind = "PNG" if max(one.pixels_HWC.shape) <= SIDE else "JPEG"
    return {
        "url": data_url(one.pixels_HWC, kind, SIDE),
        "name": one.name,
        "score": f"{one.score:.2f}" if np.isfinite(one.score) else "no profile",
    }


def _curves(found: Outside, name: str) -> Any:
    """Fraction of outside images rejected against that of inside images, by detector."""
    series = []
    for number, detector in enumerate((LATENTS, UNITS, RANDOM, *BASELINES)):
        inside, outside = found.inside[detector][0], found.outside[name][detector][0]
        wrong, right = operating_curve(inside, outside)
        at = np.unique(np.linspace(0, len(wrong) - 1, CURVES).astype(int))
        dashed = detector in (UNITS, RANDOM)
        series.append(Series(detector, wrong[at], right[at], dashed=dashed, colour=number))
    return chart(
        series,
        Axis("fraction of inside images rejected", from_zero=True),
        Axis("fraction of outside images rejected", from_zero=True),
    )


def _method(config: OodConfig, inputs: OodInputs, found: Outside) -> list[str]:
    level = (
        "the mean of its positions' codes"
        if config.code == "spatial"
        else "the code of its mean vector"
    )
    return [
        f"Fitted on {found.fitted:,} images that the dictionaries were trained on, of "
        f"{found.classes:,} classes, where a class is what the network answers. Scored: "
        f"{len(inputs.inside):,} images inside that no dictionary was trained on; the network may "
        "have been.",
        f"The code of an image is {level}. The core of a class is the {config.core:.0%} of latents "
        "that are largest in its profile; the score is KL(P || Q) there, P the image's code and Q "
        "the profile, each scaled to sum 1 after a floor of 1e-6 over all latents of the core.",
        "Maximum softmax: 1 - the largest probability. Energy: -logsumexp of the logits. "
        "Mahalanobis: the least distance of the site's mean vector to a class mean, with one "
        f"covariance. Nearest neighbours: distance to the {config.neighbours}th nearest fitted "
        "mean vector, all of norm 1. Random directions: as many as the dictionary has latents, "
        "with its mean number of active latents, chosen by the largest products.",
        "AUROC: probability that an outside image scores higher than an inside one; 0.5 by chance. "
        "FPR95: fraction of outside images accepted where 95 % of inside ones are. Errors are "
        "those of Hanley and McNeil (1982), for one dictionary; ranges are over dictionaries.",
    ]
