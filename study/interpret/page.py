"""What the page of an automatic interpretation shows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..measures.text_examples import TextExample
from .config import InterpretConfig
from .findings import KINDS, Interpretation, InterpretFindings, Judged, Kind, accuracies
from .questions import plain

CARDS = 200  # latents that have a card; all are in the table and in the files
WIDTH = 720.0  # of the chart of scores, from 0 to 1
ROW, STACK, BIN = 74.0, 7.0, 0.025
DASH = "\N{EN DASH}"


def context(config: InterpretConfig, findings: InterpretFindings) -> dict[str, Any]:
    """What page.html shows."""
    ranked = sorted(findings.latents, key=_rank)
    figures = findings.figures()
    return {
        "lead": (
            f"The model {findings.model} saw activating examples of each latent and wrote one "
            "sentence about it. Then, given the sentence alone, it was asked which other examples "
            "activate the latent (detection), and in which the right tokens are marked (fuzzing)."
        ),
        "numbers": numbers(findings, figures),
        "kinds": KINDS,
        "chart": chart(findings.latents),
        "rows": [_row(one) for one in ranked],
        "cards": [_card(one, config, findings.read) for one in ranked[:CARDS]],
        "more": max(len(ranked) - CARDS, 0),
        "method": method(config, findings),
        "caveats": [
            "A score is of the sentence and the judge together: a poor judge makes good sentences "
            "look poor.",
            "Silent examples are drawn at random, and most are about something else altogether. "
            "To tell a latent from a similar one is harder.",
            "A sentence that predicts where a latent is active does not say what the model uses "
            "it for.",
        ],
    }


def headline(figures: Mapping[str, Any]) -> str:
    """Mean scores, and what another latent's sentence scores."""
    parts = []
    for kind in KINDS:
        own, other = figures[f"{kind}_mean"], figures[f"{kind}_shuffled_mean"]
        if own is not None:
            against = "" if other is None else f" ({other:.2f} with another latent's sentence)"
            parts.append(f"{own:.2f} in {kind}{against}")
    scores = f"; balanced accuracy {' and '.join(parts)}" if parts else ""
    failed = f"; {figures['failed']} failed" if figures["failed"] else ""
    return f"{figures['interpreted']} latents explained{scores}{failed}."


def table(figures: Mapping[str, Any]) -> str:
    """For the terminal: a line a latent, in order of falling detection."""

    def cell(row: Mapping[str, Any], kind: Kind) -> str:
        own, other = row[f"{kind}_balanced_accuracy"], row[f"{kind}_shuffled"]
        return " ".join(("   -" if own is None else f"{own:4.2f}",
                         "(   -)" if other is None else f"({other:4.2f})"))  # fmt: skip

    lines = ["latent  detection (shuffled)  fuzzing (shuffled)  explanation"]
    for row in sorted(figures["latents"], key=lambda r: -(r["detection_balanced_accuracy"] or 0)):
        failed = f"[{row['failed']}] " if row["failed"] else ""
        text = f"{failed}{row['explanation']}"
        text = text if len(text) <= 100 else f"{text[:97]}..."
        detection, fuzzing = (cell(row, kind) for kind in KINDS)
        lines.append(f"{row['latent']:6d}  {detection:>20}  {fuzzing:>18}  {text}")
    return "\n".join(lines)


def numbers(findings: InterpretFindings, figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures at the top of the page, each with what it means."""
    text = "latents explained"
    if figures["failed"]:
        text += f"; {figures['failed']} failed"
    if findings.too_rare:
        text += f"; {len(findings.too_rare)} more are too rare to be tested"
    tiles = [{"value": str(figures["interpreted"]), "of": "", "text": text}]
    for kind in KINDS:
        own, shuffled = figures[kind], figures[f"{kind}_shuffled"]
        if own:
            error = own["standard_error"]
            against = f"; {shuffled['mean']:.2f} with that of another latent" if shuffled else ""
            tiles.append(
                {
                    "value": f"{own['mean']:.2f}",
                    "of": "" if error is None else f"± {error:.2f}",
                    "text": f"balanced accuracy in {kind} with its own sentence{against}",
                }
            )
    return tiles


def method(config: InterpretConfig, findings: InterpretFindings) -> list[str]:
    """How the examples were drawn, and what was asked."""
    length = len(findings.latents[0].examples.shown[0].tokens)
    graded = " The judge gave probabilities; 0.5 or more counts as yes." if config.graded else ""
    left_out = (
        f" Examples with a peak below {config.min_peak:g} of the latent's maximum were left out."
        if config.min_peak
        else ""
    )
    tally = findings.tally
    counted = (
        f" The model counted {tally.tokens_in:,} tokens of prompts and {tally.tokens_out:,} of "
        "answers."
        if tally.tokens_in
        else ""
    )
    return [
        f"Examples are {length} tokens around the strongest tokens of each context of "
        f"{findings.store}, three quarters of them before the peak; no two overlap. The explainer "
        f"saw {config.shown}, drawn from the {config.top} strongest. The others, by falling peak, "
        f"were cut into {config.tested} quantiles, and one of each was kept for the tests. Tokens "
        f"are marked if their activation is at least {config.mark_threshold:g} of their example's "
        f"peak.{left_out}",
        "Detection asks about the kept examples and as many, drawn at random, in which the latent "
        "is active nowhere. Fuzzing asks about the kept examples: every second one has the right "
        "marks, the others as many marks on tokens on which the latent is silent. (Delphi calls "
        "this variant active; its default marks silent examples, so the scores are not "
        f"comparable.) A request has {config.per_request} examples, in a random order.{graded}",
        f"{tally.requested:,} requests were sent for this page; {tally.kept:,} had been answered "
        f"before.{counted}",
    ]


def _rank(one: Interpretation) -> tuple[bool, float]:
    """Best detection first, failed latents last."""
    accuracy = one.accuracy("detection")
    return bool(one.failed), -(0.0 if math.isnan(accuracy) else accuracy)


def chart(latents: Sequence[Interpretation]) -> dict[str, Any]:
    """A row for each kind of score, own sentences above those of other latents. A dot is a latent;
    dots stack where they meet, and a line marks the mean."""
    rows, bottom = [], 0.0
    for kind in KINDS:
        for shuffled in (False, True):
            values = accuracies(latents, kind, shuffled)
            if not values:
                continue
            bottom += ROW
            mean = sum(value for _, value in values) / len(values)
            rows.append(
                {
                    "name": kind,
                    "whose": "another's sentence" if shuffled else "own sentence",
                    "shuffled": shuffled,
                    "y": f"{bottom:.1f}",
                    "dots": _dots(values, bottom),
                    "mean": f"{WIDTH * mean:.1f}",
                    "mean_text": f"{mean:.2f}",
                }
            )
    ticks = [{"x": f"{WIDTH * t / 4:.1f}", "text": f"{t / 4:g}"} for t in range(5)]
    size = {"height": f"{bottom + 36:.0f}", "foot": f"{bottom + 18:.0f}"}
    return {"rows": rows, "ticks": ticks, **size}


def _dots(values: Sequence[tuple[int, float]], bottom: float) -> list[dict[str, str]]:
    """Dots at their values, stacked within bins so that the highest stack fits into a row."""
    bins = [round(value / BIN) for _, value in values]
    most = max(bins.count(place) for place in set(bins))
    step = min(STACK, (ROW - 16) / max(most - 1, 1))
    heights: dict[int, int] = {}
    dots = []
    for latent, value in sorted(values, key=lambda pair: pair[1]):
        place = round(value / BIN)
        height = heights[place] = heights.get(place, -1) + 1
        dots.append(
            {
                "x": f"{WIDTH * place * BIN:.1f}",
                "y": f"{bottom - 5 - step * height:.1f}",
                "title": f"latent {latent}: {value:.2f}",
            }
        )
    return dots


def _row(one: Interpretation) -> dict[str, Any]:
    return {
        "latent": one.latent,
        "anchor": f"latent-{one.latent}",
        "explanation": one.explanation or "none",
        "failed": one.failed,
        "frequency": f"{100 * one.frequency:.2f} %",
        "examples": f"{one.examples.found:,}",
        "scores": [
            _score(one.accuracy(kind, shuffled)) for kind in KINDS for shuffled in (False, True)
        ],
    }


def _card(
    one: Interpretation, config: InterpretConfig, read: Callable[[int], str]
) -> dict[str, Any]:
    maximum = one.examples.maximum

    def text(example: TextExample, marks: Sequence[bool]) -> dict[str, Any]:
        return {
            "tokens": _tokens(example, marks, maximum, read),
            "peak": f"{example.peak:.2f}" if example.peak else "0",
            "place": f"context {example.context}, from token {example.start}",
        }

    return {
        **_row(one),
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
        ],
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


def _score(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2f}"
