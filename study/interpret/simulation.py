"""Simulation: a model predicts a latent's activation on every token from the explanation alone.

The score is the correlation of predicted and true activations. Source: Bills et al., Language
models can explain neurons in language models (2023); Cunningham et al. (2309.08600), who call it
the interpretability score.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float64

from ..measures.score_statistics import Correlation, correlation, rank_correlation
from ..measures.simulation_fragments import SimulationFragments
from ..measures.text_examples import TextExample
from .asking import Messages, Reply, UnusableAnswerError
from .chances import HIGHEST, expected_number
from .config import Kind
from .prompts import plain

LOGPROBS = 20  # likeliest tokens at each place of an answer that an endpoint is asked for
LINE_TOKENS = 16  # most tokens of a line of an answer
BLANK = "␣"  # stands for a token of nothing but spaces
LINE = re.compile(r"^[ \t]*(\d+)[.:)]?[ \t]+(.*?)[ \t]*$", re.MULTILINE)
VALUE = re.compile(r"(?:(.*?)[ \t|:=]+)?(\d{1,2}(?:\.\d+)?)")

SIMULATE = f"""You are told what excites one feature of a language model, and given a fragment of \
text, one numbered token a line. On every token the feature has an activation from 0 (silent) to \
{HIGHEST} (its strongest). The model reads from left to right, so an activation depends on the \
token and on what comes before it. On most tokens it is 0.

Write all lines again, with the activation that you expect, a whole number from 0 to {HIGHEST}, in \
place of the question mark. Write nothing else. For the explanation "names of colours" and the lines

1\t the\t?
2\t red\t?
3\t door\t?

the answer is

1\t the\t0
2\t red\t{HIGHEST}
3\t door\t0"""


@final
@dataclass(frozen=True)
class Simulation:
    """The predicted activations of a fragment's tokens, from 0 to 10. `weighed`: each is an
    expected value over the model's probabilities; else it is the number that was written."""

    numbers: tuple[float, ...]
    weighed: bool


@final
@dataclass(frozen=True)
class Simulated:
    """The simulations of one latent: of the top fragments, then of the random ones."""

    fragments: SimulationFragments
    simulations: Sequence[Simulation]

    @cached_property
    def both(self) -> Correlation:
        """Of true and simulated activations over all tokens: the score "top and random"."""
        return correlation(*self._pairs(0))

    @cached_property
    def random_only(self) -> Correlation:
        """The same over the tokens of the random fragments alone."""
        return correlation(*self._pairs(len(self.fragments.top)))

    @cached_property
    def rank(self) -> Correlation:
        """Rank correlation over all tokens; equal activations share their mean rank."""
        truth_N, guess_N = self._pairs(0)
        plain_one = correlation(truth_N, guess_N)  # says what is constant
        return rank_correlation(truth_N, guess_N) if plain_one.value is not None else plain_one

    @property
    def value(self) -> float | None:
        """The score."""
        return self.both.value

    @property
    def undefined(self) -> str:
        """Why there is no score; empty where there is one."""
        return self.both.undefined

    def _pairs(self, first: int) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        pairs = [pair for tokens in self.tokens()[first:] for _, *pair in tokens]
        both = np.array(pairs, np.float64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def tokens(self) -> list[list[tuple[int, float, float]]]:
        """Position, true and simulated activation of the tokens of each fragment. Tokens whose rows
        are not valid are left out: their activation is not known."""
        return [
            [
                (example.start + offset, true, number)
                for offset, (true, number, valid) in enumerate(
                    zip(example.values, one.numbers, example.valid, strict=True)
                )
                if valid
            ]
            for example, one in zip(self.examples, self.simulations, strict=True)
        ]

    @property
    def examples(self) -> list[TextExample]:
        """The fragments in the order of the simulations."""
        return [*self.fragments.top, *self.fragments.random]

    def figures(self, kind: Kind) -> dict[str, Any]:
        """As entries of latents.csv."""
        both, random, rank = (
            None if one.value is None else round(one.value, 4)
            for one in (self.both, self.random_only, self.rank)
        )
        return {
            "simulation_correlation": both,
            "simulation_random_only": random,
            "simulation_rank_correlation": rank,
            "simulation_undefined": self.undefined,
            "simulation_weighed": sum(one.weighed for one in self.simulations),
        }


def shown(example: TextExample, read: Callable[[int], str]) -> list[str]:
    """The tokens of a fragment as they are listed, each on its line; a space begins a word."""
    words = [plain(read(token)) for token in example.tokens]
    return [word if word.strip() else BLANK for word in words]


def simulation_messages(explanation: str, words: Sequence[str]) -> Messages:
    """Ask for the activation on each token."""
    lines = "\n".join(f"{slot}?" for slot in slots(words))
    return (("system", SIMULATE), ("user", f"Explanation: {explanation}\n\n{lines}"))


def slots(words: Sequence[str]) -> list[str]:
    """The lines of an answer without their numbers."""
    return [f"{number}\t{word}\t" for number, word in enumerate(words, 1)]


def simulation_parameters(words: Sequence[str], max_tokens: int, fills: bool) -> dict[str, Any]:
    """What is asked for besides the text: log-probabilities, or the slots of a local model."""
    if fills:
        return {"slots": slots(words)}
    limit = max(max_tokens, LINE_TOKENS * len(words))
    return {"max_tokens": limit, "logprobs": True, "top_logprobs": LOGPROBS}


def read_simulation(reply: Reply, words: Sequence[str], fills: bool = False) -> Simulation:
    """The activations in an answer: a line for each token, in order, with its number.

    With log-probabilities for all numbers, their expected values. Raises UnusableAnswerError
    for missing, surplus or other tokens, and for numbers outside of 0 to 10.
    """
    lines = list(LINE.finditer(reply.text))
    written: list[tuple[str, int]] = []
    for place, line in enumerate(lines):
        if place >= len(words) or int(line[1]) != place + 1:
            raise UnusableAnswerError(
                f"its line {line[0].strip()[:40]!r} is not the line {place + 1} of {len(words)}"
            )
        value = VALUE.fullmatch(line[2])
        word = words[place].strip()
        if value is None or _letters(value[1] or "") != _letters(word):
            raise UnusableAnswerError(
                f"its line {place + 1} is not {word!r} with a number from 0 to {HIGHEST}"
            )
        written.append((value[2], line.start(2) + value.start(2)))
    if len(written) != len(words):
        raise UnusableAnswerError(f"it has {len(written)} of {len(words)} lines with a number")
    if any(float(number) > HIGHEST for number, _ in written):
        raise UnusableAnswerError(f"it has a number above {HIGHEST}")
    chances = {chance.start: chance for chance in reply.chances}
    means = [expected_number(number, start, chances) for number, start in written]
    weighed = [mean for mean in means if mean is not None]
    if len(weighed) == len(written):
        return Simulation(tuple(weighed), weighed=True)
    return Simulation(tuple(float(number) for number, _ in written), weighed=fills)


def _letters(text: str) -> str:
    """A text without what models write in other ways: spaces, quotes and marks."""
    return "".join(letter for letter in text if letter.isalnum())
