"""What splicing finds: figures of each condition, and the fraction that each run recovers.

Conditions are `clean` (the site as it is), `zero` and `mean` (the site ablated) and one a run (the
site reconstructed). Findings are the JSON object of result.json.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from tendril.models.sites.language_splice import TokenSums
from tendril.models.sites.splice import CLEAN, MEAN, ZERO, Answers, recovered

CONDITIONS = (CLEAN, ZERO, MEAN)
COLUMNS = ("top1", "top5", "cross_entropy")

Findings = dict[str, Any]


def image_figures(sums: Mapping[str, Answers]) -> Findings:
    """Figures of each condition, and what each run recovers of what each ablation loses.

    FVU is that of all positions of these images: sum ||x - x_hat||^2 / sum ||x - mean||^2.
    """
    conditions = {name: answers.figures() for name, answers in sums.items()}
    clean = conditions[CLEAN]
    runs: dict[str, Any] = {}
    for name in (n for n in sums if n not in CONDITIONS):
        found: dict[str, Any] = {**conditions[name], "fvu": sums[name].missed / sums[MEAN].missed}
        for against in (ZERO, MEAN):
            ablated = conditions[against]
            found[f"recovered_against_{against}"] = {
                column: recovered(clean[column], conditions[name][column], ablated[column])
                for column in COLUMNS
            }
        runs[name] = found
    return {**{name: conditions[name] for name in CONDITIONS}, "runs": runs}


def token_figures(
    sums: Mapping[str, TokenSums], chosen_G: Bool[Tensor, " g"] | None = None
) -> Findings:
    """Figures of each condition in some groups of predictions or all, and what each run recovers.

    Loss recovered is 1 - (CE_spliced - CE_clean) / (CE_ablated - CE_clean).
    """
    means = {name: one.means(chosen_G) for name, one in sums.items()}
    counts = {name: one.pop("count") for name, one in means.items()}
    loss = {name: one["cross_entropy"] for name, one in means.items()}
    runs: dict[str, Any] = {}
    for name in (n for n in means if n not in CONDITIONS):
        runs[name] = dict(means[name])
        for against in (ZERO, MEAN):
            fraction = recovered(loss[CLEAN], loss[name], loss[against])
            runs[name][f"recovered_against_{against}"] = fraction
    return {
        "predictions": counts[CLEAN],
        **{name: means[name] for name in CONDITIONS},
        "runs": runs,
    }


def text_figures(
    sums: Mapping[str, TokenSums],
    latents_on: Mapping[str, float],
    parts: Mapping[str, Mapping[str, Tensor]],
    groups: int,
) -> Findings:
    """Figures over all predictions, and over the groups of each part of `parts`.

    `latents_on` is the mean number of active latents of each run. FVU is that of all vectors
    replaced. A group without a prediction is left out.
    """
    every = token_figures(sums)
    for name, mean_on in latents_on.items():
        every["runs"][name]["fvu"] = sums[name].missed / sums[MEAN].missed
        every["runs"][name]["l0"] = mean_on
    there_G = sums[CLEAN].sums_FG[0] > 0

    def chosen(at: Tensor) -> Bool[Tensor, " g"]:
        return torch.zeros(groups, dtype=torch.bool).index_fill_(0, at, True)

    return every | {
        part: {
            name: token_figures(sums, chosen(at)) for name, at in cut.items() if there_G[at].any()
        }
        for part, cut in parts.items()
    }


def best(findings: Mapping[str, Any]) -> dict[str, Any]:
    """The run that recovers most of the loss against zeros, as scalars for the command's JSON."""
    fractions = {name: loss_recovered(run) for name, run in findings["runs"].items()}
    known = {name: value for name, value in fractions.items() if value is not None}
    if not known:
        return {"best_run": None, "best_loss_recovered": None}
    name = max(known, key=lambda n: known[n])
    return {"best_run": name, "best_loss_recovered": known[name]}


def loss_recovered(run: Mapping[str, Any], against: str = ZERO) -> float | None:
    """The fraction of the loss that a run recovers, of images or of text."""
    fraction = run[f"recovered_against_{against}"]
    value: float | None = fraction["cross_entropy"] if isinstance(fraction, Mapping) else fraction
    return value
