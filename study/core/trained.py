"""How a run was trained, in words: what runs that are compared have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

BASELINES = ("pca", "ica", "nmf", "random", "neurons")
"""Objectives that learn no sparse code."""
K_SPARSE = ("topk", "batch_topk", "matryoshka", *BASELINES)
WITH_L1 = ("relu_l1", "tied", "gated")


FITTED = ("pca", "ica", "nmf", "neurons")
"""Objectives without initial weights; equal seeds say nothing about them."""


@final
@dataclass(frozen=True)
class TrainedSparsity:
    """How sparse a dictionary was trained to be.

    field: the field of the run's config that says so: k, l1, l0 or target_l0
    value: its value
    raw:   the value for raw rows; NaN where it is not known, as for imported dictionaries

    Rows are scaled by s before training so that E||x||^2 = D. For raw rows the weight of an L1
    penalty is l1 / s, and that of active latents, whose squared error is over D, is l0 D / s^2.
    """

    field: str
    value: float
    raw: float

    @property
    def text(self) -> str:
        """For people, e.g. `k 16`."""
        return f"{self.field} {self.value:.4g}"


def sparsity_of(trained: Mapping[str, Any]) -> TrainedSparsity | None:
    """The sparsity of a run, by its config; None for an objective without one."""
    objective = str(trained.get("objective", ""))
    field = "k" if objective in K_SPARSE else "l1" if objective in WITH_L1 else ""
    if objective == "jumprelu":
        field = "target_l0" if trained.get("target_l0") else "l0"
    made = trained.get("dictionary") or {}
    if not field and made.get("sparsity") == "topk":  # imported
        field, value = "k", float(made["k"])
    elif trained.get(field) is None:
        return None
    else:
        value = float(trained[field])
    scale = float((trained.get("scales") or {}).get(str(trained.get("site"))) or "nan")
    width = float(trained.get("width") or "nan")
    raw = {"l1": value / scale, "l0": value * width / scale**2}.get(field, value)
    return TrainedSparsity(field, value, float("nan") if "imported" in trained else raw)


def setting_text(trained: Mapping[str, Any]) -> str:
    """The sparsity, length and kind of a training, e.g. `k 16, 6.1 M vectors`."""
    sparsity = sparsity_of(trained)
    parts = [sparsity.text] if sparsity else []
    if annealed := float(trained.get("k_anneal") or 0):
        parts.append(f"falling over {annealed:.0%} of the steps")
    if sparsity and sparsity.field == "l0" and trained.get("start_l0"):
        parts.append(f"first L0 {trained['start_l0']:g}")
    if vectors := int(trained.get("steps") or 0) * int(trained.get("batch_size") or 0):
        parts.append(f"{vectors / 1e6:.2g} M vectors")
    if (control := trained.get("control") or "none") != "none":
        parts.append(str(control))
    return ", ".join(parts)


def same_start(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """True if two runs began with weights drawn from one seed. Of two sizes the smaller one's
    are among those of the larger one, or may be, so sizes are not asked for."""
    seeds = [one.get("seed") for one in (first, second)]
    fitted = any(one.get("objective") in FITTED for one in (first, second))
    return seeds[0] is not None and seeds[0] == seeds[1] and not fitted


def series_name(trained: Mapping[str, Any]) -> str:
    """What runs of other sizes and seeds share with a run: site, objective and setting."""
    objective = str(trained.get("objective") or "unknown objective")
    parts = (str(trained.get("site", "")), objective, setting_text(trained))
    return ", ".join(part for part in parts if part)
