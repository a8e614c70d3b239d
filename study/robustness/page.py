"""What the page of robustness shows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..core.trained import BASELINES
from ..page.charts import Axis, Series, chart
from .findings import (
    CONDITIONS,
    EXACT,
    Effect,
    Measured,
    Robustness,
    verdict_on_error,
    verdict_on_features,
)
from .inputs import RobustnessInputs


def headline(figures: Mapping[str, Any]) -> str:
    """The verdicts, from the records of effects."""
    found = [_effect(one) for one in figures["effects"]]
    error = [one for one in found if one.metric in ("fvu", "l0")]
    features = [one for one in found if one.metric == "features"]
    return f"{verdict_on_error(error)} {verdict_on_features(features)}"


def _effect(one: Mapping[str, Any]) -> Effect:
    return Effect(
        (one["site"], one["objective"], one["setting"], one["width"]),
        one["metric"],
        one["epsilon"],
        one["log_ratio"],
        float(one["half_interval"]) if one["half_interval"] != "" else math.nan,
        float(one["seed_noise"]) if one["seed_noise"] != "" else math.nan,
        (one["plain_networks"], one["robust_networks"]),
    )


def terminal_table(figures: Mapping[str, Any]) -> str:
    """Accuracies and effects."""
    heads = ("network", "width", "trained at", "seed", *CONDITIONS)
    rows = [
        (o["network"], str(o["width"]), f"{o['trained_epsilon']:g}", str(o["seed"]),
         *(f"{o[name]:.3f}" for name in CONDITIONS))
        for o in figures["accuracies"]
    ]  # fmt: skip
    effects = [_effect(one) for one in figures["effects"] if one["metric"] != "units"]
    effects = [one for one in effects if one.metric == "fvu" or not _control(one)]
    return "\n\n".join([columns([heads, *rows]), columns(effect_rows(effects))])


def effect_rows(found: Sequence[Effect]) -> list[list[str]]:
    """A row an effect."""
    rows = [["site", "dictionary", "width", "figure", "robust / plain", "95 % interval",
             "seed noise", "networks", "verdict"]]  # fmt: skip
    names = {
        "fvu": "error (FVU)",
        "l0": "L0",
        "features": "effective features",
        "units": "effective units",
    }
    for one in found:
        site, objective, setting, width = one.cell
        low, high = (math.exp(one.log_ratio + side * one.half) for side in (-1, 1))
        rows.append(
            [
                site,
                f"{objective} {setting}",
                str(width),
                names[one.metric],
                f"{math.exp(one.log_ratio):.3f}",
                f"{_ratio(low)}-{_ratio(high)}" if math.isfinite(one.half) else "one network",
                f"{100 * one.seed_noise:.1f} %" if math.isfinite(one.seed_noise) else "",
                f"{one.networks[0]} and {one.networks[1]}",
                one.direction,
            ]
        )
    return rows


def _control(one: Effect) -> bool:
    return one.cell[1] in BASELINES


def _ratio(value: float) -> str:
    """A ratio; one that is far from 1 as a bound."""
    return "<0.01" if value < 0.01 else ">100" if value > 100 else f"{value:.3g}"


def context(inputs: RobustnessInputs, found: Robustness) -> dict[str, Any]:
    """What page.html shows."""
    error = [*found.effects("fvu"), *found.effects("l0")]
    features, units = found.effects("features"), found.effects("units")
    images = found.networks[0].images
    return {
        "lead": (
            "Adversarial examples may exist because networks hold more features than neurons. If "
            "so, networks trained against attacks should have less superposition, and "
            "dictionaries should explain them better. Here both kinds are compared."
        ),
        "warning": (
            f"Left out of all comparisons, since their training failed: {', '.join(found.failed)}."
            if found.failed
            else ""
        ),
        "verdicts": [verdict_on_error(error), verdict_on_features(features)],
        "accuracies": accuracy_rows(found),
        "effects": effect_rows([one for one in (*error, *features) if not _control(one)]),
        "controls": effect_rows([one for one in error if _control(one)]),
        "units": effect_rows(units) if units else None,
        "charts": charts(found),
        "conditions": condition_rows(found),
        "attack": f"{found.norm} {found.epsilon:.4g}",
        "method": [
            f"{images:,} images, {inputs.images.identity.get('part', '')}; FGSM is one step of "
            f"size epsilon, PGD {inputs.attack.steps} steps of {inputs.attack.step:.4g} from a "
            f"random start, both in the {found.norm} norm with epsilon {found.epsilon:.4g} in "
            "units of pixels from 0 to 1, against each network itself.",
            "FVU is about the mean of the vectors of the condition. Effective features are "
            "exp(H(p)), p_i the share of latent i in the sum of |z|, per neuron of the site.",
            "An effect is the ratio of geometric means over networks, those trained against the "
            "largest epsilon over plain ones; its interval is Welch's, over seeds of networks. "
            "Seed noise is the standard deviation over seeds of the dictionary on one network.",
        ],
        "caveats": [
            "Robust networks differ from plain ones in more than superposition: the variance of a "
            "site may lie in fewer directions, which lowers the error of PCA too. The controls "
            "show how much.",
            "Effective features count how evenly latents are used; they depend on the number of "
            "latents and on sparsity, so only equal settings are compared.",
        ],
    }


def accuracy_rows(found: Robustness) -> list[list[str]]:
    """A row a network."""
    rows = [["network", "width", "trained at epsilon", "seed", "clean", "FGSM", "PGD"]]
    for one in found.networks:
        t = one.trained
        rows.append(
            [t.name, str(t.width) if t.width > 0 else "", f"{t.epsilon:.3g}",
             str(t.seed) if t.seed >= 0 else "",
             *(f"{one.accuracy[name]:.3f}" for name in CONDITIONS)]
        )  # fmt: skip
    return rows


def condition_rows(found: Robustness) -> list[list[str]]:
    """A row a site, network kind and dictionary: L0 and error on clean and attacked images, means
    over seeds. This is the layout of the paper's second table."""
    rows = [["site", "dictionary", "width", "trained at epsilon", "runs",
             "L0 clean", "FGSM", "PGD", "FVU clean", "FGSM", "PGD"]]  # fmt: skip
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for one in found.runs:
        groups.setdefault((*one.cell, one.network.epsilon), []).append(one)
    for (site, objective, setting, width, epsilon), some in sorted(
        groups.items(), key=lambda pair: pair[0]
    ):
        means = [
            np.mean([one.figures[c][name] for one in some])
            for name in ("l0", "fvu")
            for c in CONDITIONS
        ]
        texts = [f"{m:.1f}" for m in means[:3]] + [f"{m:.3f}" for m in means[3:]]
        rows.append([site, f"{objective} {setting}", str(width), f"{epsilon:.3g}",
                     str(len(some)), *texts])  # fmt: skip
    return rows


def charts(found: Robustness) -> list[tuple[str, Any]]:
    """For each site: error and effective features against the epsilon of training, a line a width
    and dictionary; controls are dashed."""
    drawn = []
    for site in dict.fromkeys(one.site for one in found.runs):
        some = [one for one in found.runs if one.site == site and one.network.known]
        for metric, name in (("fvu", "error (FVU)"), ("features", "effective features / neuron")):
            series = _lines(some, metric)
            if series:
                picture = chart(series, Axis("epsilon of training"), Axis(name, log=True))
                drawn.append((f"{site}: {name}", picture))
    return drawn


def _lines(runs: Sequence[Measured], metric: str) -> list[Series]:
    groups: dict[tuple[str, str, int], list[Measured]] = {}
    for one in runs:
        if metric == "fvu" or not one.control:
            groups.setdefault((one.objective, one.setting, one.network.width), []).append(one)
    widths = sorted({width for _, _, width in groups})
    series = []
    for (objective, setting, width), some in sorted(groups.items()):
        at = sorted({one.network.epsilon for one in some})
        if len(at) < 2:
            continue
        y = [np.mean([o.value(metric) for o in some if o.network.epsilon == e]) for e in at]
        if metric == "fvu" and min(y) < EXACT:
            continue
        series.append(
            Series(
                f"{objective} {setting}, width {width}",
                np.array(at),
                np.array(y),
                dashed=objective in BASELINES,
                colour=widths.index(width),
            )
        )
    return series
