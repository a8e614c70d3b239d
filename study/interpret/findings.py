"""What an automatic interpretation finds: scores of each latent's sentence, and their means.

Source of the scores: Paulo et al. (2410.13928), detection and fuzzing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

import numpy as np

from tendril.data import order

from ..measures.text_examples import LatentExamples, TextExample
from .asking import Tally

Kind = Literal["detection", "fuzzing"]
KINDS: tuple[Kind, ...] = ("detection", "fuzzing")


@final
@dataclass(frozen=True)
class Item:
    """One example that the judge is asked about, its marked tokens (if any), and whether `yes` is
    the right answer."""

    example: TextExample
    marks: tuple[bool, ...]
    truth: bool


@final
@dataclass(frozen=True)
class Score:
    """A judge's answers compared with the truth. A figure is None where it is not defined:
    precision without a `yes`, AUROC without grades."""

    balanced_accuracy: float
    precision: float | None
    recall: float
    auroc: float | None
    items: int


@final
@dataclass(frozen=True)
class Judged:
    """What a judge was asked about a latent, its grades, and their score."""

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
    """One latent: its sentence, how well it predicts (`own`), and how well the sentence of the
    latent `other` does (`shuffled`). `failed` says why something is missing."""

    examples: LatentExamples
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

    def row(self) -> dict[str, Any]:
        """The latent as a row of latents.csv."""
        row: dict[str, Any] = {
            "latent": self.latent,
            "frequency": self.frequency,
            "examples": self.examples.found,
            "maximum": self.examples.maximum,
            "explanation": self.explanation,
        }
        for kind in KINDS:
            score = self.own[kind].score if kind in self.own else None
            for name in ("balanced_accuracy", "precision", "recall", "auroc"):
                row[f"{kind}_{name}"] = _rounded(getattr(score, name, None))
            row[f"{kind}_items"] = score.items if score else 0
        for kind in KINDS:
            row[f"{kind}_shuffled"] = _rounded(self.accuracy(kind, True))
        return row | {"shuffled_from": self.other, "failed": self.failed}


@final
@dataclass(frozen=True)
class InterpretFindings:
    """All latents that were interpreted, and `too_rare`: those with too few examples to be tested.

    `read` gives the text of a token; `estimate` and `tally` say what was to be asked and what
    was.
    """

    run: str
    store: str
    model: str
    latents: Sequence[Interpretation]
    too_rare: Sequence[int]
    estimate: Mapping[str, Any]
    tally: Tally
    read: Callable[[int], str]

    def figures(self) -> dict[str, Any]:
        """Means over the latents that were scored, with standard errors, and each latent's own
        figures."""
        figures: dict[str, Any] = {
            "run": self.run,
            "store": self.store,
            "model": self.model,
            "interpreted": sum(bool(one.explanation) for one in self.latents),
            "failed": sum(bool(one.failed) for one in self.latents),
        }
        for kind in KINDS:
            for name, shuffled in ((kind, False), (f"{kind}_shuffled", True)):
                mean = _mean([value for _, value in accuracies(self.latents, kind, shuffled)])
                figures[name] = mean
                figures[f"{name}_mean"] = mean["mean"] if mean else None
            scores = [one.own[kind].score for one in self.latents if kind in one.own]
            if any(score.auroc is not None for score in scores):
                figures[f"{kind}_auroc"] = _mean([s.auroc for s in scores if s.auroc is not None])
        return {
            **figures,
            "latents": [one.row() for one in self.latents],
            "too_rare": list(self.too_rare),
            "estimate": dict(self.estimate),
            **asdict(self.tally),
        }

    def judgements(self) -> list[dict[str, Any]]:
        """Every answer of the judge as a row of judgements.csv: the example, what was right, and
        what was said."""
        return [
            {
                "latent": one.latent,
                "kind": kind,
                "explanation_of": one.other if shuffled else one.latent,
                "context": item.example.context,
                "position": item.example.start,
                "peak": round(item.example.peak, 5),
                "marked": " ".join(str(i) for i, on in enumerate(item.marks) if on),
                "truth": int(item.truth),
                "grade": grade,
                "right": int(right),
            }
            for one in self.latents
            for shuffled, all_judged in ((False, one.own), (True, one.shuffled))
            for kind, judged in all_judged.items()
            for item, grade, right in zip(judged.items, judged.grades, judged.right, strict=True)
        ]


def accuracies(
    latents: Iterable[Interpretation], kind: Kind, shuffled: bool = False
) -> list[tuple[int, float]]:
    """(latent, balanced accuracy) of those that have one."""
    each = ((one.latent, one.accuracy(kind, shuffled)) for one in latents)
    return [(latent, value) for latent, value in each if not math.isnan(value)]


def score_of(truths: Sequence[bool], grades: Sequence[float], graded: bool) -> Score:
    """Score grades against the truth. A grade of 0.5 or more is a `yes`.

    Balanced accuracy is (recall + specificity) / 2, so chance is 0.5 whatever the fraction of
    true items. The AUROC, computed if `graded`, is the probability that a true item is graded
    above a false one (ties count half).
    """
    truth, grade = np.array(truths, bool), np.array(grades, float)
    assert truth.any() and not truth.all(), "both kinds of items are needed"
    said = grade >= 0.5
    recall = float(said[truth].mean())
    specificity = float((~said[~truth]).mean())
    above = grade[truth][:, None] - grade[~truth]
    return Score(
        (recall + specificity) / 2,
        float(truth[said].mean()) if said.any() else None,
        recall,
        float(((above > 0) + 0.5 * (above == 0)).mean()) if graded else None,
        len(truth),
    )


def items_of(examples: LatentExamples, kind: Kind, mark_threshold: float, seed: int) -> list[Item]:
    """What a judge is asked about one latent, in a random order (a pure function of `seed`, the
    latent and the kind).

    Detection: the active examples and as many silent ones, without marks. Fuzzing: of the active
    examples, by falling peak, every second one with its own marks, the others with as many marks
    drawn from tokens on which the latent is silent; an example without such tokens is left out.

    Wrong marks thus stand in active examples, as in the variant `active` of Delphi's fuzzing. Its
    default puts them into examples in which the latent is silent, which the words alone can give
    away. Scores must not be compared with those of Delphi's defaults. Two things also differ from
    its `active`: wrong marks there are true ones moved by one token, besides marks at the old
    place, and each example appears twice, with right and with wrong marks.
    """
    key = (seed, examples.latent, 10 if kind == "detection" else 11)
    if kind == "detection":
        count = min(len(examples.active), len(examples.silent))
        chosen = order.sample(len(examples.active), count, *key, 1)
        active = [examples.active[i] for i in chosen]
        items = [Item(one, _none(one), True) for one in active]
        items += [Item(one, _none(one), False) for one in examples.silent[:count]]
    else:
        items = []
        for place, example in enumerate(examples.active):
            right = example.marks(mark_threshold)
            marks = wrong_marks(example, sum(right), *key, place) if place % 2 else right
            if any(marks):
                items.append(Item(example, marks, place % 2 == 0))
    return [items[i] for i in order.permutation(len(items), *key)]


def wrong_marks(example: TextExample, count: int, *key: int) -> tuple[bool, ...]:
    """Marks on at most `count` tokens, drawn from the valid ones on which the latent is silent."""
    pairs = zip(example.values, example.valid, strict=True)
    free = [i for i, (value, valid) in enumerate(pairs) if valid and value <= 0]
    drawn = {free[i] for i in order.sample(len(free), count, *key)}
    return tuple(i in drawn for i in range(len(example.values)))


def _none(example: TextExample) -> tuple[bool, ...]:
    return (False,) * len(example.tokens)


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
