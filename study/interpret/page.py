"""The page of an automatic interpretation: findings in, words and shapes for the template out."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..measures.text_examples import Fragment
from .config import InterpretConfig
from .findings import KINDS, Interpretation, Judged, accuracies
from .prompts import Kind, plain

CARDS = 200  # latents that have a card; all are in the table and in the files
WIDTH = 720.0  # of the chart of scores, from 0 to 1
ROW, STACK, BIN = 74.0, 7.0, 0.025
ASKED = {"detection": "Is the latent active here?", "fuzzing": "Are the right tokens marked?"}


def page_context(
    found: Sequence[Interpretation],
    figures: Mapping[str, Any],
    config: InterpretConfig,
    read: Callable[[int], str],
    command: str,
    made: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the template says."""
    ranked = sorted(found, key=_rank)
    return {
        "title": "Latents in words",
        "figures": figures,
        "numbers": [_number(figures, kind) for kind in KINDS],
        "kinds": KINDS,
        "graded": config.graded,
        "chart": chart(found),
        "rows": [_row(one) for one in ranked],
        "cards": [_card(one, config, read) for one in ranked[:CARDS]],
        "more": max(len(ranked) - CARDS, 0),
        "config": config,
        "length": len(found[0].examples.shown[0].tokens),
        "command": command,
        "made": json.dumps(made, indent=2),
    }


def _rank(one: Interpretation) -> tuple[bool, float]:
    """Best detection first, what failed last."""
    accuracy = one.accuracy("detection")
    return bool(one.failed), -(0.0 if math.isnan(accuracy) else accuracy)


def _number(figures: Mapping[str, Any], kind: Kind) -> dict[str, str]:
    own, shuffled = figures[kind], figures[f"{kind}_shuffled"]
    error = "" if not own or own["standard_error"] is None else f" ± {own['standard_error']:.2f}"
    against = f", and {shuffled['mean']:.2f} with that of another latent" if shuffled else ""
    return {
        "value": f"{own['mean']:.2f}{error}" if own else "none",
        "text": f"balanced accuracy in {kind} with its own sentence{against}",
    }


def chart(found: Sequence[Interpretation]) -> dict[str, Any]:
    """A row for each kind of score, own sentences above, others' below: a dot a latent, stacked
    where they meet, and their mean."""
    rows, top = [], 0.0
    for kind in KINDS:
        for shuffled in (False, True):
            values = accuracies(found, kind, shuffled)
            if not values:
                continue
            top += ROW
            heights: dict[int, int] = {}
            dots = []
            for latent, value in sorted(values, key=lambda pair: pair[1]):
                place = round(value / BIN)
                height = heights[place] = heights.get(place, -1) + 1
                step = min(STACK, (ROW - 16) / max(_most(values) - 1, 1))
                dots.append(
                    {
                        "x": f"{WIDTH * place * BIN:.1f}",
                        "y": f"{top - 5 - step * height:.1f}",
                        "title": f"latent {latent}: {value:.2f}",
                    }
                )
            mean = sum(value for _, value in values) / len(values)
            rows.append(
                {
                    "name": kind,
                    "whose": "another's sentence" if shuffled else "own sentence",
                    "shuffled": shuffled,
                    "y": f"{top:.1f}",
                    "dots": dots,
                    "mean": f"{WIDTH * mean:.1f}",
                    "mean_text": f"{mean:.2f}",
                }
            )
    ticks = [{"x": f"{WIDTH * t / 4:.1f}", "text": f"{t / 4:g}"} for t in range(5)]
    return {"rows": rows, "height": f"{top + 36:.0f}", "foot": f"{top + 18:.0f}", "ticks": ticks}


def _most(values: Sequence[tuple[int, float]]) -> int:
    """How many dots the highest stack has."""
    places = [round(value / BIN) for _, value in values]
    return max(places.count(place) for place in set(places))


def _row(one: Interpretation) -> dict[str, Any]:
    return {
        "latent": one.latent,
        "anchor": f"latent-{one.latent}",
        "explanation": one.explanation or "none",
        "failed": one.failed,
        "frequency": f"{100 * one.frequency:.2f} %",
        "fragments": f"{one.examples.found:,}",
        "scores": [
            _told(one.accuracy(kind, shuffled)) for kind in KINDS for shuffled in (False, True)
        ],
    }


def _card(
    one: Interpretation, config: InterpretConfig, read: Callable[[int], str]
) -> dict[str, Any]:
    maximum = one.examples.maximum

    def text(fragment: Fragment, marks: Sequence[bool]) -> dict[str, Any]:
        return {
            "tokens": _tokens(fragment, marks, maximum, read),
            "peak": f"{fragment.peak:.2f}" if fragment.peak else "0",
            "place": f"context {fragment.context}, from token {fragment.start}",
        }

    return {
        **_row(one),
        "shown": [text(f, f.marks(config.mark)) for f in one.examples.shown],
        "judged": [
            {
                "kind": kind,
                "asked": ASKED[kind],
                "right": sum(judged.right),
                "facts": _facts(judged),
                "items": [
                    text(item.fragment, item.marks)
                    | {
                        "right": right,
                        "truth": "yes" if item.truth else "no",
                        "said": _said(grade, config.graded),
                    }
                    for item, grade, right in _in_order(judged)
                ],
            }
            for kind, judged in one.own.items()
        ],
        "other": one.other,
    }


def _in_order(judged: Judged) -> list[Any]:
    """What is true first, then by falling peak."""
    each = zip(judged.items, judged.grades, judged.right, strict=True)
    return sorted(each, key=lambda told: (not told[0].truth, -told[0].fragment.peak))


def _facts(judged: Judged) -> str:
    score = judged.score
    told = [("balanced accuracy", score.balanced_accuracy), ("precision", score.precision)]
    told += [("recall", score.recall), ("AUROC", score.auroc)]
    return ", ".join(f"{name} {value:.2f}" for name, value in told if value is not None)


def _said(grade: float, graded: bool) -> str:
    word = "yes" if grade >= 0.5 else "no"
    return f"{word} ({grade:.2f})" if graded else word


def _tokens(
    fragment: Fragment, marks: Sequence[bool], maximum: float, read: Callable[[int], str]
) -> list[dict[str, Any]]:
    """The tokens of a fragment: text, how dark (0 to 1), marked or not; plain ones joined."""
    told: list[dict[str, Any]] = []
    for token, value, mark in zip(fragment.tokens, fragment.values, marks, strict=True):
        text = read(token).replace("\n", "⏎")
        bare = not mark and value <= 0
        if bare and told and told[-1]["bare"]:
            told[-1]["text"] += text
            continue
        shade = 0.0 if value <= 0 else 0.12 + 0.68 * value / maximum
        told.append(
            {
                "text": text,
                "bare": bare,
                "mark": mark,
                "shade": f"{100 * shade:.0f}%",
                "title": f"{plain(read(token))!s}: {value:.3f}",
            }
        )
    return told


def _told(value: float) -> str:
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.2f}"
