"""The page of feature patching."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..page.charts import Line, line_chart
from ..page.render import render

ORDERS = {
    "greedy": "greedy, one order for all",
    "own_greedy": "greedy, each pair its own",
    "attribution": "attribution, one order for all",
    "own_attribution": "attribution, each pair its own",
}
WORDS = {
    "greedy": "Each feature is the one that, beside those before it, leaves the least KL on pairs "
    "set aside for that.",
    "own_greedy": "The same, for each pair by itself: the fewest features that were found.",
    "attribution": "By what gradients, between the base prompt and the counterfactual one, say "
    "that a feature takes off the KL, in the mean over pairs set aside for that.",
    "own_attribution": "By the same gradients, of each pair by itself.",
}


def patching_page(figures: Mapping[str, Any], examples: Sequence[tuple[str, str]]) -> str:
    """The whole page as HTML."""
    curves = figures["curves"]
    ways = [way for way in ORDERS if any(way in one for one in curves.values())]
    return render(
        Path(__file__).parent,
        {
            "title": f"Patching features at {figures['site']} of {figures['subject']}",
            "pairs": figures["pairs"],
            "fitted": figures["fitted"],
            "where": "from the first token that differs on"
            if figures["positions"] == "after"
            else "at the last token alone",
            "before": f"{figures['kl_before']:.3f}",
            "whole": f"{figures['kl_whole']:.3f}",
            "right": f"{figures['right_base']:.0%}",
            "sections": [
                {
                    "heading": ORDERS[way].capitalize(),
                    "words": WORDS[way],
                    "number": _chart(curves, way, by_size=False),
                    "size": _chart(curves, way, by_size=True),
                }
                for way in ways
            ],
            "needed": needed_rows(curves, ways),
            "examples": [list(pair) for pair in examples],
        },
    )


def needed_rows(curves: Mapping[str, Any], ways: Sequence[str]) -> list[list[str]]:
    """A line an order and a share: how many features of each kind take that share off the KL."""
    shares = list(next(iter(curves.values()))["attribution"]["needed"])
    rows = [["features needed", *curves]]
    for way in ways:
        for share in shares:
            needed = [
                told.get(way, {"needed": {}})["needed"].get(share) for told in curves.values()
            ]
            rows.append(
                [f"{ORDERS[way]}: {share}", *("-" if n is None else str(n) for n in needed)]
            )
    return rows


def _chart(curves: Mapping[str, Any], way: str, *, by_size: bool) -> dict[str, Any]:
    lines = []
    for number, (name, ways) in enumerate(curves.items()):
        if way in ways:
            kl, size = ways[way]["kl"], ways[way]["size"]
            across = size if by_size else [float(n) for n in range(len(kl))]
            lines.append(Line(name, list(zip(across, kl, strict=True)), number, name == "pca"))
    x_name = "mean L2 norm of the edit" if by_size else "features changed"
    return line_chart(lines, x_name, "KL(counterfactual ‖ patched)")
