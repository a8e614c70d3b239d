"""Intruders: of five examples, four activate a latent, and a model is asked for the fifth.

No explanation is needed: the score is of the latent and the judge alone. Chance is 1 in 5. Source:
Paulo and Belrose, Evaluating SAE interpretability without explanations (2025).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tendril.data import order

from ..measures.text_examples import LatentExamples, TextExample
from .asking import Messages, UnusableAnswerError
from .config import Kind
from .judging import wrong_marks
from .prompts import CLOSE, OPEN, marked

ALIKE = 4  # examples of the latent in a question
KEY = 12

INTRUDER = f"""You are given {ALIKE + 1} numbered fragments of text, in which some tokens stand \
between {OPEN} and {CLOSE}. In {ALIKE} of them these tokens, or what comes before them, have \
something in common. One fragment does not belong to the others.

Answer with the number of that fragment, from 1 to {ALIKE + 1}, and nothing else."""


@final
@dataclass(frozen=True)
class Trial:
    """One question: five examples with their marks, and the `place` of the intruder, from 0."""

    examples: tuple[TextExample, ...]
    marks: tuple[tuple[bool, ...], ...]
    place: int


@final
@dataclass(frozen=True)
class Intruded:
    """The questions about one latent, and the places that were answered."""

    trials: Sequence[Trial]
    answers: Sequence[int]

    @property
    def right(self) -> list[bool]:
        """Which answers are right."""
        return [a == t.place for a, t in zip(self.answers, self.trials, strict=True)]

    @property
    def value(self) -> float | None:
        """The fraction of intruders that were found."""
        return float(np.mean(self.right))

    @property
    def undefined(self) -> str:
        """Empty: the fraction is always defined."""
        return ""

    def figures(self, kind: Kind) -> dict[str, Any]:
        """As entries of latents.csv."""
        value = self.value
        return {
            "intruder_accuracy": None if value is None else round(value, 4),
            "intruder_trials": len(self.trials),
        }


def trials_of(
    examples: LatentExamples, mates: Sequence[LatentExamples], threshold: float, seed: int
) -> list[Trial]:
    """Questions about one latent, four neighbouring quantiles of its active examples in each.

    The intruder is a silent example with as many marks, at random, as the four have on average.
    With `mates` each of the four is an example of another of these latents, at the same rank: what
    is right then shows how well the marks alone give the intruder away.
    """
    trials = []
    for number in range(min(len(examples.active) // ALIKE, len(examples.silent))):
        places = range(number * ALIKE, (number + 1) * ALIKE)
        if mates:
            lent = zip(places, mates, strict=True)
            four = [mate.active[min(place, len(mate.active) - 1)] for place, mate in lent]
        else:
            four = [examples.active[place] for place in places]
        marks = [example.marks(threshold) for example in four]
        count = max(1, round(sum(map(sum, marks)) / ALIKE))
        odd = examples.silent[number]
        key = (seed, examples.latent, KEY, number, int(bool(mates)))
        odd_marks = wrong_marks(odd, count, *key)
        shuffled = order.permutation(ALIKE + 1, *key, 1).tolist()
        pairs = [*zip(four, marks, strict=True), (odd, odd_marks)]
        chosen = [pairs[i] for i in shuffled]
        trials.append(
            Trial(tuple(e for e, _ in chosen), tuple(m for _, m in chosen), shuffled.index(ALIKE))
        )
    return trials


def intruder_messages(trial: Trial, read: Callable[[int], str]) -> Messages:
    """Ask for the fragment that does not belong."""
    texts = [marked(e, m, read) for e, m in zip(trial.examples, trial.marks, strict=True)]
    numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
    return (("system", INTRUDER), ("user", numbered))


def read_place(answer: str) -> int:
    """The place in an answer, from 0. Raises UnusableAnswerError for none or several."""
    lines = [line for line in answer.splitlines() if line.strip()]
    numbers = (
        {int(n) for n in re.findall(r"(?<![\d.])\d+(?!\d|\.\d)", lines[-1])} if lines else set()
    )
    if len(numbers) != 1 or not 1 <= min(numbers) <= ALIKE + 1:
        raise UnusableAnswerError(f"its last line has no number from 1 to {ALIKE + 1}, or several")
    return min(numbers) - 1
