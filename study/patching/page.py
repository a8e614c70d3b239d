"""The figures of feature patching as tables, for the terminal and the page, and its charts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tendril.data.store.tables import columns

from ..page.charts import Axis, Series, chart
from .findings import FRACTIONS, ORDERS, PCA, RANDOM, Findings

MEANING = {
    "acdc": "ACDC (Algorithm 4.1 of the paper) starts with all features patched and leaves out "
    "each feature without which the mean KL rises by less than a threshold. The thresholds are "
    "swept; the more of them keep a feature, the earlier it comes. Decided on pairs set aside for "
    "that.",
    "own_acdc": "The same for each pair by itself.",
    "greedy": "Each next feature is the one that leaves the least KL together with those before "
    "it, on pairs set aside for that.",
    "own_greedy": "The same for each pair by itself: the fewest features that were found.",
    "attribution": "Features in order of the reduction of the KL that gradients between the base "
    "prompt and the counterfactual one attribute to them, averaged over pairs set aside for that.",
    "own_attribution": "By the same gradients, for each pair by itself.",
}
BEST = ("acdc", "own_greedy", "own_attribution")  # orders for the headline, the better one first


def terminal_table(figures: Mapping[str, Any]) -> str:
    """How many features remove half, and four fifths, of the KL that the whole site removes."""
    head = (
        f"{figures['subject']} {figures['site']}: {figures['pairs']} pairs, features changed "
        f"{_where(figures)}. KL before {figures['kl_before']:.3f}, with the whole site changed "
        f"{_kl_whole(figures)}. The model prefers the right name to the other prompt's in "
        f"{figures['right_base']:.0%} of the base prompts and "
        f"{figures['right_counterfactual']:.0%} of the counterfactual ones. "
        f"{_able(figures)}\n"
    )
    curves = figures["curves"]
    ways = [way for way in ORDERS if any(way in one for one in curves.values())]
    return head + columns(needed_rows(curves, ways))


def headline(figures: Mapping[str, Any]) -> str:
    """Features of each kind needed for half of the KL, in the best order that reaches it."""
    curves = figures["curves"]
    part = FRACTIONS[0]
    needed = {
        way: {name: ways[way]["needed"][part] for name, ways in curves.items()}
        for way in BEST
        if way in curves[PCA]
    }
    way = next((way for way, counts in needed.items() if any(counts.values())), "")
    if not way:
        return f"No number of features that was tried removes {part} of the KL."
    text = ", ".join(f"{name} {count or 'more than tried'}" for name, count in needed[way].items())
    return f"Features needed for {part} of the KL ({ORDERS[way]}): {text}."


def context(findings: Findings) -> dict[str, Any]:
    """What page.html shows."""
    figures = findings.figures
    curves = figures["curves"]
    ways = [way for way in ORDERS if any(way in one for one in curves.values())]
    return {
        "lead": (
            "How few features must be changed for the model to answer one prompt as it answers "
            "another? Latents of dictionaries, against principal components of the same vectors "
            "and random directions."
        ),
        "numbers": _tiles(figures),
        "grids": [needed_rows(curves, ways), edit_rows(curves, ways)],
        "sections": [
            {
                "heading": f"{ORDERS[way][0].upper()}{ORDERS[way][1:]}",
                "words": MEANING[way],
                "charts": [_chart(curves, way, by_size=by_size) for by_size in (False, True)],
            }
            for way in ways
        ],
        "examples": [list(pair) for pair in findings.examples],
        "method": [
            f"x* = x + Σ (c* - c) f over the chosen features, {_where(figures)}: c are the "
            "features of the base prompt, c* those of the counterfactual prompt, and f their "
            "directions. KL is that of the next token after the prompt, in nats.",
            f"{figures['fitted']} other pairs decided the orders that all pairs share. Principal "
            f"components were fitted on rows of {figures['store']} that training may use; the "
            "random directions are at right angles to each other.",
            "Intervals are the 2.5 and 97.5 percentiles over 500 sets of as many pairs, drawn with "
            "replacement; the order of the features stays.",
            _able(figures),
        ],
        "caveats": [
            "Dictionaries do not reconstruct exactly, so all their latents together leave some KL. "
            "All principal components, or all random directions, leave what changing the whole "
            "site leaves.",
            "An order is no proof of the least number of features: a better set may exist.",
            "The prompts are generated from a few templates and say little about other text.",
        ],
    }


def _tiles(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    tiles = (
        (f"{figures['pairs']}", f"pairs; {figures['fitted']} others decided the shared orders"),
        (f"{figures['kl_before']:.3f}", "is the KL(counterfactual ‖ base) with nothing changed"),
        (_kl_whole(figures), f"is the KL with the whole site changed {_where(figures)}"),
        (
            f"{figures['right_base']:.0%}",
            "of the base prompts: the model prefers the right name to that of the other prompt",
        ),
    )
    return [{"value": value, "of": "", "text": text} for value, text in tiles]


def _kl_whole(figures: Mapping[str, Any]) -> str:
    """The KL that remains, which rounding can bring below 0."""
    return f"{max(figures['kl_whole'], 0.0):.3f}"


def _where(figures: Mapping[str, Any]) -> str:
    if figures["positions"] == "after":
        return "from the first token that differs on"
    return "at the last token alone"


def needed_rows(curves: Mapping[str, Any], ways: Sequence[str]) -> list[list[str]]:
    """A row an order and a fraction: how many features of each kind remove it, with an interval."""
    rows = [["features needed", *curves]]
    for way in ways:
        for part in FRACTIONS:
            found = [_needed(one[way], part) if way in one else "-" for one in curves.values()]
            rows.append([f"{ORDERS[way]}: {part}", *found])
    return rows


def edit_rows(curves: Mapping[str, Any], ways: Sequence[str]) -> list[list[str]]:
    """A row an order and a fraction: the mean L2 norm of the edits that remove it."""
    rows = [["L2 norm of the edit", *curves]]
    for way in ways:
        for part in FRACTIONS:
            sizes = [one[way]["edit"][part] if way in one else None for one in curves.values()]
            found = ["-" if size is None else f"{size:.3g}" for size in sizes]
            rows.append([f"{ORDERS[way]}: {part}", *found])
    return rows


def _needed(one: Mapping[str, Any], part: str) -> str:
    """A number of features with its interval; ">" says that more than were tried are needed."""
    beyond = f">{len(one['kl']) - 1}"
    count, low, high = (
        beyond if n is None else f"{n}" for n in (one["needed"][part], *one["interval"][part])
    )
    return beyond if count == low == high == beyond else f"{count} ({low} to {high})"


def _able(figures: Mapping[str, Any]) -> str:
    """Whether the model can do the task at all."""
    able = figures["able"]
    verdict = "can do" if able["can"] else "has not been shown to do"
    return (
        f"Of the two names in a prompt it prefers the one that does not speak or give in "
        f"{able['right']:.0%} of {able['prompts']} prompts (95 % interval {able['low']:.0%} to "
        f"{able['high']:.0%}; chance 50 %): the model {verdict} the task of these prompts."
    )


def _chart(curves: Mapping[str, Any], way: str, *, by_size: bool) -> str:
    series = []
    for number, (name, ways) in enumerate(curves.items()):
        if way in ways:
            kl = np.array(ways[way]["kl"])
            across = np.array(ways[way]["size"]) if by_size else np.arange(len(kl), dtype=float)
            series.append(Series(name, across, kl, dashed=name in (PCA, RANDOM), colour=number))
    x_name = "mean L2 norm of the edit" if by_size else "features changed"
    return chart(
        series,
        Axis(x_name, from_zero=True),
        Axis("KL(counterfactual ‖ patched)", from_zero=True),
    )
