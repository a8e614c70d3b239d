"""What runs of one series share, in words."""

from collections.abc import Mapping
from typing import Any

SPARSITY = {
    **dict.fromkeys(("topk", "batch_topk", "matryoshka", "random", "pca", "ica", "neurons"), "k"),
    **dict.fromkeys(("relu_l1", "tied", "gated"), "l1"),
    "jumprelu": "target_l0",
}
"""The field of a run's config that sets its sparsity."""
BASELINES = ("random", "pca", "ica", "nmf", "neurons")


def series_name(trained: Mapping[str, Any]) -> str:
    """What the runs of a series share, in words: only equally long trainings compare."""
    objective = str(trained.get("objective", ""))
    field = SPARSITY.get(objective)
    if objective == "jumprelu" and not trained.get("target_l0"):
        field = "l0"
    parts = [str(trained.get("site", "")), objective or "unknown objective"]
    if field and field in trained:
        parts.append(f"{field} {trained[field]:g}")
    if vectors := int(trained.get("steps") or 0) * int(trained.get("batch_size") or 0):
        parts.append(f"{vectors / 1e6:.2g} M vectors")
    if (control := trained.get("control", "none")) != "none":
        parts.append(str(control))
    return ", ".join(part for part in parts if part)
