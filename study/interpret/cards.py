"""The latents on the page of an automatic interpretation: rows of the table, and cards."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..measures.text_examples import TextExample
from .chances import HIGHEST
from .config import InterpretConfig, Kind
from .findings import Interpretation
from .intruder import Intruded
from .judging import Judged
from .prompts import plain
from .simulation import Simulated

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def signed(value: float) -> str:
    """A score with two decimals."""
    return f"{value:.2f}".replace("-", MINUS)


def row(one: Interpretation, kinds: Sequence[Kind]) -> dict[str, Any]:
    """A latent in the table of latents."""
    return {
        "latent": one.latent,
        "anchor": f"latent-{one.latent}",
        "explanation": one.explanation or "none",
        "failed": one.failed,
        "frequency": f"{100 * one.frequency:.2f} %",
        "examples": f"{one.examples.found:,}",
        "moments": [DASH if m is None else f"{m:,.1f}" for m in (one.skew, one.kurtosis)],
        "scores": [_score(one, kind, shuffled) for kind in kinds for shuffled in (False, True)],
    }


def card(
    one: Interpretation, config: InterpretConfig, read: Callable[[int], str]
) -> dict[str, Any]:
    """A latent with its examples, and what was answered about them."""
    maximum = one.examples.maximum

    def text(example: TextExample, marks: Sequence[bool]) -> dict[str, Any]:
        return {
            "tokens": _tokens(example, marks, maximum, read),
            "peak": f"{example.peak:.2f}" if example.peak else "0",
            "place": f"context {example.context}, from token {example.start}",
        }

    return {
        **row(one, config.kinds),
        "shown": [text(e, e.marks(config.mark_threshold)) for e in one.examples.shown],
        "judged": [
            {
                "kind": kind,
                "right": sum(judged.right),
                "facts": _facts(judged),
                "items": [
                    text(item.example, item.marks)
                    | {
                        "right": right,
                        "truth": "yes" if item.truth else "no",
                        "said": _said(grade, config.graded),
                    }
                    for item, grade, right in _in_order(judged)
                ],
            }
            for kind, judged in one.own.items()
            if isinstance(judged, Judged)
        ],
        "simulated": _simulated(one, read),
        "intruders": _intruders(one, read),
    }


def _in_order(judged: Judged) -> list[Any]:
    """True items first, then by falling peak."""
    each = zip(judged.items, judged.grades, judged.right, strict=True)
    return sorted(each, key=lambda entry: (not entry[0].truth, -entry[0].example.peak))


def _facts(judged: Judged) -> str:
    score = judged.score
    facts = [("balanced accuracy", score.balanced_accuracy), ("precision", score.precision)]
    facts += [("recall", score.recall), ("AUROC", score.auroc)]
    return ", ".join(f"{name} {value:.2f}" for name, value in facts if value is not None)


def _said(grade: float, graded: bool) -> str:
    word = "yes" if grade >= 0.5 else "no"
    return f"{word} ({grade:.2f})" if graded else word


def _tokens(
    example: TextExample, marks: Sequence[bool], maximum: float, read: Callable[[int], str]
) -> list[dict[str, Any]]:
    """The tokens of an example: text, shade (0 to 1) and mark; plain tokens are joined."""
    shown: list[dict[str, Any]] = []
    for token, value, mark in zip(example.tokens, example.values, marks, strict=True):
        text = read(token).replace("\n", "⏎")
        bare = not mark and value <= 0
        if bare and shown and shown[-1]["bare"]:
            shown[-1]["text"] += text
            continue
        shade = 0.0 if value <= 0 else 0.12 + 0.68 * value / maximum
        shown.append(
            {
                "text": text,
                "bare": bare,
                "mark": mark,
                "shade": f"{100 * shade:.0f}%",
                "title": f"{plain(read(token))!s}: {value:.3f}",
            }
        )
    return shown


def _simulated(one: Interpretation, read: Callable[[int], str]) -> dict[str, Any] | None:
    """Fragments, shaded once by the true and once by the simulated activations."""
    result = one.own.get("simulation")
    if not isinstance(result, Simulated):
        return None
    top = len(result.fragments.top)
    lines = []
    for place, (example, simulation) in enumerate(
        zip(result.examples, result.simulations, strict=True)
    ):
        guess = replace(example, values=simulation.numbers)
        none = (False,) * len(example.tokens)
        lines.append(
            {
                "part": "strong" if place < top else "random",
                "true": _tokens(example, none, one.examples.maximum, read),
                "guess": _tokens(guess, none, float(HIGHEST), read),
                "place": f"context {example.context}, from token {example.start}",
            }
        )
    facts = [("all", result.both), ("random only", result.random_only), ("ranks", result.rank)]
    shown = [f"{name} {DASH if c.value is None else f'{c.value:.2f}'}" for name, c in facts]
    reason = f"; undefined: {result.undefined}" if result.undefined else ""
    return {"lines": lines, "facts": ", ".join(shown) + reason}


def _intruders(one: Interpretation, read: Callable[[int], str]) -> dict[str, Any] | None:
    """The questions about intruders, with what was said."""
    result = one.own.get("intruder")
    if not isinstance(result, Intruded):
        return None
    trials = []
    for trial, answer in zip(result.trials, result.answers, strict=True):
        each = zip(trial.examples, trial.marks, strict=True)
        fragments = [_tokens(e, m, one.examples.maximum, read) for e, m in each]
        marks = [
            ("intruder" if place == trial.place else "") + (" said" if place == answer else "")
            for place in range(len(fragments))
        ]
        trials.append(list(zip(marks, fragments, strict=True)))
    return {"right": sum(result.right), "trials": trials}


def _score(one: Interpretation, kind: Kind, shuffled: bool) -> dict[str, str]:
    """A score as text, with the reason where it is undefined."""
    value = one.score(kind, shuffled)
    result = (one.shuffled if shuffled else one.own).get(kind)
    if math.isnan(value):
        return {
            "text": "undefined" if result else DASH,
            "title": result.undefined if result else "",
        }
    return {"text": signed(value), "title": ""}
