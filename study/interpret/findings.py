"""What an automatic interpretation has found: of each latent, and of all of them, in figures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np

from ..measures.text_examples import Examples
from .prompts import Kind
from .scores import Item, Score

KINDS: tuple[Kind, ...] = ("detection", "fuzzing")
NOTHING: Mapping[Kind, "Judged"] = {}


@final
@dataclass(frozen=True)
class Judged:
    """What a judge was asked about a latent, the grades it gave, and what they are worth."""

    items: Sequence[Item]
    grades: Sequence[float]
    score: Score

    @property
    def right(self) -> list[bool]:
        """Which answers are right."""
        return [(g >= 0.5) == i.truth for g, i in zip(self.grades, self.items, strict=True)]


@final
@dataclass(frozen=True)
class Interpretation:
    """One latent: its sentence, how well that predicts (`own`), and how well the sentence of the
    latent `other` does (`shuffled`). `failed` says in a sentence why something is missing."""

    examples: Examples
    frequency: float
    explanation: str = ""
    own: Mapping[Kind, Judged] = field(default_factory=dict)
    other: int | None = None
    shuffled: Mapping[Kind, Judged] = field(default_factory=dict)
    failed: str = ""

    @property
    def latent(self) -> int:
        """Its number in the dictionary."""
        return self.examples.latent

    def accuracy(self, kind: Kind, shuffled: bool = False) -> float:
        """Balanced accuracy; NaN where there is none."""
        judged = (self.shuffled if shuffled else self.own).get(kind)
        return judged.score.balanced_accuracy if judged else math.nan


def accuracies(
    found: Iterable[Interpretation], kind: Kind, shuffled: bool = False
) -> list[tuple[int, float]]:
    """(latent, balanced accuracy) of those that have one."""
    each = ((one.latent, one.accuracy(kind, shuffled)) for one in found)
    return [(latent, value) for latent, value in each if not math.isnan(value)]


def figures_of(found: Sequence[Interpretation]) -> dict[str, Any]:
    """The figures of the whole: means over the latents that were scored, each with its standard
    error, and every latent's own."""
    told: dict[str, Any] = {
        "interpreted": sum(bool(one.explanation) for one in found),
        "failed": sum(bool(one.failed) for one in found),
    }
    for kind in KINDS:
        told[kind] = _mean([v for _, v in accuracies(found, kind)])
        told[f"{kind}_shuffled"] = _mean([v for _, v in accuracies(found, kind, True)])
        judged = [one.own[kind].score for one in found if kind in one.own]
        if any(score.auroc is not None for score in judged):
            told[f"{kind}_auroc"] = _mean([s.auroc for s in judged if s.auroc is not None])
    return told | {"latents": [latent_figures(one) for one in found]}


def latent_figures(one: Interpretation) -> dict[str, Any]:
    """One latent, flat: a line of the table."""
    told: dict[str, Any] = {
        "latent": one.latent,
        "frequency": one.frequency,
        "fragments": one.examples.found,
        "maximum": one.examples.maximum,
        "explanation": one.explanation,
    }
    for kind in KINDS:
        score = one.own[kind].score if kind in one.own else None
        for name in ("balanced_accuracy", "precision", "recall", "auroc"):
            told[f"{kind}_{name}"] = _rounded(getattr(score, name, None))
        told[f"{kind}_items"] = score.items if score else 0
    for kind in KINDS:
        told[f"{kind}_shuffled"] = _rounded(one.accuracy(kind, True))
    return told | {"shuffled_from": one.other, "failed": one.failed}


def judgements(found: Sequence[Interpretation]) -> list[dict[str, Any]]:
    """Every answer of the judge, flat: which fragment, what was right, what was said."""
    return [
        {
            "latent": one.latent,
            "kind": kind,
            "explanation_of": one.other if shuffled else one.latent,
            "context": item.fragment.context,
            "position": item.fragment.start,
            "peak": round(item.fragment.peak, 5),
            "marked": " ".join(str(i) for i, on in enumerate(item.marks) if on),
            "truth": int(item.truth),
            "grade": grade,
            "right": int(right),
        }
        for one in found
        for shuffled, all_judged in ((False, one.own), (True, one.shuffled))
        for kind, judged in all_judged.items()
        for item, grade, right in zip(judged.items, judged.grades, judged.right, strict=True)
    ]


def table(found: Sequence[Interpretation]) -> str:
    """For the terminal: a line a latent, worst detection last."""

    def number(value: float) -> str:
        return "   -" if math.isnan(value) else f"{value:4.2f}"

    lines = ["latent  detection (shuffled)  fuzzing (shuffled)  explanation"]
    for one in sorted(found, key=lambda one: -_or_zero(one.accuracy("detection"))):
        detection, fuzzing = (
            f"{number(one.accuracy(kind))} ({number(one.accuracy(kind, True))})" for kind in KINDS
        )
        said = one.explanation if not one.failed else f"[{one.failed}] {one.explanation}"
        said = said if len(said) <= 100 else f"{said[:97]}..."
        lines.append(f"{one.latent:6d}  {detection:>20}  {fuzzing:>18}  {said}")
    return "\n".join(lines)


def score_words(score: Score) -> dict[str, Any]:
    """A score's figures under their names, rounded."""
    return {name: _rounded(value) for name, value in asdict(score).items()}


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return {
        "mean": round(float(np.mean(values)), 4),
        "standard_error": None if error is None else round(error, 4),
        "latents": len(values),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 4)


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
