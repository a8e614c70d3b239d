"""Detection and fuzzing: examples that a judge calls true or false, and the score of its answers.

Source: Paulo et al. (2410.13928).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tendril.data import order

from ..measures.text_examples import LatentExamples, TextExample
from .config import Kind


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
    def value(self) -> float | None:
        """The balanced accuracy."""
        return self.score.balanced_accuracy

    @property
    def undefined(self) -> str:
        """Empty: the accuracy is always defined."""
        return ""

    def figures(self, kind: Kind) -> dict[str, Any]:
        """As entries of latents.csv."""
        names = ("balanced_accuracy", "precision", "recall", "auroc")
        values = {f"{kind}_{name}": _rounded(getattr(self.score, name)) for name in names}
        return {**values, f"{kind}_items": self.score.items}

    @property
    def right(self) -> list[bool]:
        """Which answers are right."""
        return [(g >= 0.5) == i.truth for g, i in zip(self.grades, self.items, strict=True)]


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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
