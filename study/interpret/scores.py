"""How well a sentence predicts where a latent is active.

Source: Paulo et al. (2410.13928), detection and fuzzing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from tendril.data import order

from ..measures.text_examples import Examples, Fragment
from .prompts import Kind


@final
@dataclass(frozen=True)
class Item:
    """One fragment that a judge is asked about, what is marked in it (of every token, or of
    none), and whether `yes` is the right answer."""

    fragment: Fragment
    marks: tuple[bool, ...]
    truth: bool


@final
@dataclass(frozen=True)
class Score:
    """A judge's answers held against the truth. A figure is None where nothing was said that it
    could be made of: precision without a `yes`, AUROC without grades."""

    balanced_accuracy: float
    precision: float | None
    recall: float
    auroc: float | None
    items: int


def score_of(truths: Sequence[bool], grades: Sequence[float], graded: bool) -> Score:
    """Balanced accuracy, (recall + specificity) / 2, so that chance is 1/2 whatever the shares;
    precision, recall; and of grades the AUROC, the chance that a true item is graded above a
    false one (ties count half). A grade is a `yes` from 1/2 on."""
    truth, grade = np.array(truths, bool), np.array(grades, float)
    assert truth.any() and not truth.all(), "both kinds of items are asked about"
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


def items_of(examples: Examples, kind: Kind, mark: float, seed: int) -> list[Item]:
    """What a judge is asked about one latent, in a random order (a pure function of `seed`, the
    latent and the kind).

    Detection: the active fragments and as many silent ones, without marks. Fuzzing: of the active
    fragments, by falling peak, every second one with its own marks, the others with as many
    marks drawn from tokens on which the latent is silent; a fragment that has none is left out.
    """
    key = (seed, examples.latent, 10 if kind == "detection" else 11)
    if kind == "detection":
        count = min(len(examples.active), len(examples.silent))
        chosen = order.sample(len(examples.active), count, *key, 1)
        active = [examples.active[i] for i in chosen]
        items = [Item(f, _none(f), True) for f in active]
        items += [Item(f, _none(f), False) for f in examples.silent[:count]]
    else:
        items = []
        for place, fragment in enumerate(examples.active):
            right = fragment.marks(mark)
            marks = wrong_marks(fragment, sum(right), *key, place) if place % 2 else right
            if any(marks):
                items.append(Item(fragment, marks, place % 2 == 0))
    return [items[i] for i in order.permutation(len(items), *key)]


def wrong_marks(fragment: Fragment, count: int, *key: int) -> tuple[bool, ...]:
    """At most `count` tokens, drawn from the valid ones on which the latent is silent."""
    pairs = zip(fragment.values, fragment.valid, strict=True)
    free = [i for i, (value, valid) in enumerate(pairs) if valid and value <= 0]
    drawn = {free[i] for i in order.sample(len(free), count, *key)}
    return tuple(i in drawn for i in range(len(fragment.values)))


def _none(fragment: Fragment) -> tuple[bool, ...]:
    return (False,) * len(fragment.tokens)


def asked_about(items: Sequence[Item]) -> bool:
    """Whether a score can be made of these: both answers are right for some."""
    return len({item.truth for item in items}) == 2


def batches_of(items: Sequence[Item], together: int) -> list[Sequence[Item]]:
    """The items of each request."""
    return [items[i : i + together] for i in range(0, len(items), together)]
