"""What the page of scaling shows of single manifolds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ..page.charts import Axis, Series, chart
from .circle import pictures
from .runs import Dictionary
from .toys import FALLS, LEVEL, TAIL, Curve, curves

HEAD = ("manifold", "objective", "with further latents", "beta", "level / 2d", "sizes",
        "alive, last size", "seeds", "loss, first to last size", "bound")  # fmt: skip
STEPS = [(step * 10.0**power, f"{step * 10.0**power:g}")
         for power in range(-6, 1) for step in (1, 2, 5)]  # fmt: skip
"""Labels of a logarithmic axis that may span less than a power of ten."""
NAMES = {"relu_l1": "ReLU L1", "jumprelu": "JumpReLU", "topk": "TopK", "batch_topk": "BatchTopK"}


def toys_context(toys: Sequence[Dictionary]) -> dict[str, Any] | None:
    """Table, charts and pictures of runs on one manifold; None without such runs."""
    if not toys:
        return None
    found = curves(toys)
    return {
        "runs": len(toys),
        "tail": TAIL,
        "falls": f"{FALLS:g}",
        "level": f"{LEVEL:.0%}",
        "table": [HEAD, *(_row(one) for one in found)],
        "charts": _charts(found),
        "circles": pictures(toys),
    }


def manifold(one: Curve) -> str:
    """A manifold in words, e.g. `circle`, `sphere, d = 3`."""
    if (one.shape, one.dimension) == ("sphere", 2):
        return "circle"
    return f"{one.shape}, d = {one.dimension}"


def _row(one: Curve) -> list[str]:
    error = "" if one.error is None else f" \N{PLUS-MINUS SIGN} {one.error:.3f}"
    return [
        manifold(one),
        f"{NAMES.get(one.objective, one.objective)}, {one.setting}",
        one.verdict,
        "" if one.beta is None else f"{one.beta:.3f}{error}",
        f"{one.level / (2 * one.dimension):.2g}" if one.level else "",
        f"{int(one.latents_M[0]):,} to {int(one.latents_M[-1]):,}",
        f"{one.alive_M[-1]:,.0f}",
        str(one.seeds),
        f"{one.loss_M[0]:.3f} to {one.loss_M[-1]:.4f}" if np.isfinite(one.loss_M[0]) else "unknown",
        f"{one.bound:.4f}" if np.isfinite(one.bound) else "unknown",
    ]


def _charts(found: Sequence[Curve]) -> list[tuple[str, Markup]]:
    """For each objective, the excess loss and the FVU against the number of latents. A colour is a
    dimension; shells and other shapes are dashed."""
    dimensions = sorted({one.dimension for one in found})
    drawn = []
    for what in dict.fromkeys((one.objective, one.setting) for one in found):
        own = [one for one in found if (one.objective, one.setting) == what]
        name = f"{NAMES.get(what[0], what[0])}, {what[1]}"
        for title, values in (("loss above the bound", "excess_M"), ("FVU", "fvu_M")):
            if title != "FVU" and what[0] not in ("relu_l1", "jumprelu", "tied"):
                continue  # the loss is the FVU
            series = [
                Series(
                    manifold(one),
                    one.latents_M,
                    getattr(one, values),
                    dashed=one.shape != "sphere",
                    colour=dimensions.index(one.dimension),
                )
                for one in own
            ]
            axes = Axis("latents n", log=True), Axis(title, log=True, labels=STEPS)
            drawn.append((f"{name}: {title}", chart(series, *axes)))
    return drawn
