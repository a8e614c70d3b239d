"""The course of an automatic interpretation: estimate, explain, judge.

Every latent is a thread of questions of its own: where one of them gets no answer, that latent has
failed and the others go on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from ..measures.text_examples import Examples
from .ask import Asker, UnansweredError
from .config import InterpretConfig
from .findings import KINDS, Interpretation, Judged
from .prompts import (
    Kind,
    Messages,
    explain_messages,
    judge_messages,
    marked,
    read_explanation,
    read_grades,
)
from .scores import Item, asked_about, batches_of, items_of, score_of

PLACEHOLDER = "Words of about this length stand here until an explanation has been written."
CHARACTERS = 4  # of English text in a token, by rule of thumb
SENTENCE, GRADE = 60, 4  # tokens that an explanation, and one grade, are taken to have


@final
@dataclass(frozen=True)
class Questions:
    """What is asked about latents, under one config, of text that `read` spells."""

    config: InterpretConfig
    read: Callable[[int], str]

    def explain(self, examples: Examples) -> Messages:
        """The request for a sentence."""
        return explain_messages(examples.shown, examples.maximum, self.config.mark, self.read)

    def items(self, examples: Examples, kind: Kind) -> list[Item]:
        """What is judged about a latent; nothing where no score could be made of it."""
        items = items_of(examples, kind, self.config.mark, self.config.seed)
        return items if asked_about(items) else []

    def judge(self, kind: Kind, explanation: str, items: Sequence[Item]) -> Messages:
        """One request about some items."""
        texts = [marked(item.fragment, item.marks, self.read) for item in items]
        return judge_messages(kind, explanation, texts, self.config.graded)

    def judge_all(
        self, examples: Examples, explanation: str
    ) -> list[tuple[Kind, Sequence[Item], Messages]]:
        """Every request that tests an explanation on a latent."""
        return [
            (kind, batch, self.judge(kind, explanation, batch))
            for kind in KINDS
            for batch in batches_of(self.items(examples, kind), self.config.together)
        ]


def estimate(questions: Questions, asker: Asker, every: Sequence[Interpretation]) -> dict[str, Any]:
    """What remains to be asked, before it is: requests, tokens, price.

    A token is taken as four characters, an answer as a sentence or a short list. Answers that are
    kept cost nothing; where an explanation is still to be written, so are its tests.
    """
    config = questions.config
    requests = kept = tokens_in = tokens_out = 0

    def count(messages: Messages, tokens: int) -> str | None:
        nonlocal requests, kept, tokens_in, tokens_out
        answer = asker.kept(messages)
        if answer is not None:
            kept += 1
            return answer
        requests += 1
        tokens_in += sum(len(content) for _, content in messages) // CHARACTERS
        tokens_out += tokens
        return None

    sentences = []
    for one in every:
        answer = count(questions.explain(one.examples), SENTENCE)
        sentences.append(PLACEHOLDER if answer is None else read_explanation(answer))
    for place, one in enumerate(every):
        tested = [sentences[place]]
        if config.shuffled and len(every) > 1:
            tested.append(sentences[(place + 1) % len(every)])
        for sentence in tested:
            for _, batch, messages in questions.judge_all(one.examples, sentence):
                count(messages, GRADE * len(batch))
    price = (tokens_in * config.price_in + tokens_out * config.price_out) / 1e6
    return {
        "requests": requests,
        "kept": kept,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "price": round(price, 4),
    }


def interpret(
    questions: Questions, asker: Asker, every: Sequence[Interpretation]
) -> list[Interpretation]:
    """Explain every latent, then test each sentence, and that of the next latent in its place.

    Raises EndpointError where the model cannot be asked at all; what was answered is kept.
    """
    explained = asker.each("explain", lambda one: _explained(questions, asker, one), every)
    having = [one for one in explained if one.explanation]
    if questions.config.shuffled and len(having) > 1:
        following = {a.latent: b for a, b in zip(having, having[1:] + having[:1], strict=True)}
    else:
        following = {}
    judged = asker.each(
        "judge", lambda one: _judged(questions, asker, one, following.get(one.latent)), having
    )
    of_latent = {one.latent: one for one in judged}
    return [of_latent.get(one.latent, one) for one in explained]


def _explained(questions: Questions, asker: Asker, one: Interpretation) -> Interpretation:
    try:
        sentence = asker.ask(questions.explain(one.examples), read_explanation)
    except UnansweredError as error:
        return replace(one, failed=f"no explanation {error}")
    return replace(one, explanation=sentence)


def _judged(
    questions: Questions, asker: Asker, one: Interpretation, other: Interpretation | None
) -> Interpretation:
    """The scores of one latent, as far as they were answered for."""
    for kind in KINDS:
        items = questions.items(one.examples, kind)
        try:
            if items:
                own = _asked(questions, asker, kind, one.explanation, items)
                one = replace(one, own={**one.own, kind: own})
            if items and other:
                theirs = _asked(questions, asker, kind, other.explanation, items)
                shuffled = {**one.shuffled, kind: theirs}
                one = replace(one, shuffled=shuffled, other=other.latent)
        except UnansweredError as error:
            return replace(one, failed=f"no judgement ({kind}) {error}")
    return one


def _asked(
    questions: Questions, asker: Asker, kind: Kind, explanation: str, items: Sequence[Item]
) -> Judged:
    grades: list[float] = []
    for batch in batches_of(items, questions.config.together):
        messages = questions.judge(kind, explanation, batch)
        grades += asker.ask(messages, partial(read_grades, count=len(batch)))
    truths = [item.truth for item in items]
    return Judged(items, grades, score_of(truths, grades, questions.config.graded))
