"""What an explainer and a judge are asked, how their answers are read, and in which order.

The tasks are those of Paulo, Mallen, Juang and Belrose, Automatically Interpreting Millions of
Features in Large Language Models (2410.13928; EleutherAI's Delphi). An explanation is written from
examples in which the tokens that activate a latent are marked <<so>>. `detection` asks which other
examples activate it; `fuzzing` asks in which examples the right tokens are marked. The wording is
ours; another wording would lose the answers that were kept.

Every latent is asked about on its own: if one of its questions gets no answer, that latent has
failed and the others go on.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, final

from tendril.data.cli import note
from tendril.data.errors import EndpointError

from ..measures.text_examples import LatentExamples, TextExample
from .asking import Asker, Messages, UnansweredError, UnusableAnswerError
from .config import InterpretConfig
from .findings import KINDS, Interpretation, Item, Judged, Kind, items_of, score_of

OPEN, CLOSE = "<<", ">>"
NO_MARKS = {ord("<"): 0x2039, ord(">"): 0x203A}  # what looks like marks in a text
STEPS = 10  # the scale on which the explainer sees activations

CONTROL = dict.fromkeys(
    (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), " "
)
"""What a sentence must not hold: control characters, and marks that reverse the direction."""

Answer = TypeVar("Answer")

PLACEHOLDER = "Words of about this length stand here until an explanation has been written."
CHARACTERS = 4  # of English text in a token, by rule of thumb
SENTENCE, GRADE = 60, 4  # estimated tokens of an explanation, and of one grade

EXPLAIN = f"""You study one feature of a language model. On every token of a text the feature is \
active, more or less, or silent. You are given fragments of text in which it is active: the tokens \
that excite it stand between {OPEN} and {CLOSE}, and are listed below each fragment with their \
activation on a scale from 1 to {STEPS}. The model reads from left to right, so what excites the \
feature is the marked token or something before it.

Say in one short sentence what excites the feature. Be as specific as the fragments allow: name \
the words, the kind of word or the situation. Do not speak of fragments, marks or activations. \
End your answer with one line that begins with "Explanation:"."""

DETECTION = """You are told what excites one feature of a language model, and given numbered \
fragments of text. For each fragment, decide whether the feature is active on any of its tokens."""

FUZZING = f"""You are told what excites one feature of a language model, and given numbered \
fragments of text in which some tokens stand between {OPEN} and {CLOSE}, as if these had excited \
the feature. In some fragments these are the right tokens, in others they were drawn at \
random. For each fragment, decide whether the marked tokens are the ones that the \
explanation speaks of."""

PLAIN = """Answer with a JSON list of one number a fragment, in their order: 1 for yes, 0 for no, \
e.g. [1, 0, 0]. Write nothing after the list."""

GRADED = """Answer with a JSON list of one number a fragment, in their order: the probability that \
the answer is yes, from 0 to 1, e.g. [0.95, 0.1, 0.4]. Write nothing after the list."""


@final
@dataclass(frozen=True)
class Questions:
    """What is asked about latents under a config; `read` gives the text of a token."""

    config: InterpretConfig
    read: Callable[[int], str]

    def explain(self, examples: LatentExamples) -> Messages:
        """The request for a sentence."""
        mark_threshold = self.config.mark_threshold
        return explain_messages(examples.shown, examples.maximum, mark_threshold, self.read)

    def items(self, examples: LatentExamples, kind: Kind) -> list[Item]:
        """What is judged about a latent; empty unless both answers are right for some items."""
        items = items_of(examples, kind, self.config.mark_threshold, self.config.seed)
        return items if len({item.truth for item in items}) == 2 else []

    def requests(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """The items of each request."""
        size = self.config.per_request
        return [items[i : i + size] for i in range(0, len(items), size)]

    def judge(self, kind: Kind, explanation: str, items: Sequence[Item]) -> Messages:
        """One request about some items."""
        texts = [marked(item.example, item.marks, self.read) for item in items]
        return judge_messages(kind, explanation, texts, self.config.graded)


def estimate(
    questions: Questions, asker: Asker, latents: Sequence[Interpretation]
) -> dict[str, Any]:
    """What is still to be asked: requests, tokens and their price.

    A token is taken as four characters, an answer as a sentence or a short list. Answers that are
    kept cost nothing. Where an explanation is still to be written, so are its tests.
    """
    config = questions.config
    requests = kept = tokens_in = tokens_out = 0

    def count(messages: Messages, tokens: int, parse: Callable[[str], Answer]) -> Answer | None:
        nonlocal requests, kept, tokens_in, tokens_out
        answer = asker.kept(messages, parse)
        if answer is not None:
            kept += 1
            return answer
        requests += 1
        tokens_in += sum(len(content) for _, content in messages) // CHARACTERS
        tokens_out += tokens
        return None

    sentences = []
    for one in latents:
        sentence = count(questions.explain(one.examples), SENTENCE, read_explanation)
        sentences.append(PLACEHOLDER if sentence is None else sentence)
    for place, one in enumerate(latents):
        tested = [sentences[place]]
        if config.shuffled and len(latents) > 1:
            tested.append(sentences[(place + 1) % len(latents)])
        for sentence in tested:
            for kind in KINDS:
                for batch in questions.requests(questions.items(one.examples, kind)):
                    messages = questions.judge(kind, sentence, batch)
                    read = partial(read_grades, count=len(batch))
                    count(messages, GRADE * len(batch), read)
    price = (tokens_in * config.price_in + tokens_out * config.price_out) / 1e6
    return {
        "requests": requests,
        "kept": kept,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "price": round(price, 4),
    }


def cost_sentence(cost: Mapping[str, Any], model: str) -> str:
    """The estimate in a sentence."""
    price = f", for {cost['price']:,.2f}" if cost["price"] else ""
    return (
        f"{cost['requests']:,} requests to {model} ({cost['kept']:,} more are already answered): "
        f"about {cost['tokens_in']:,} tokens of prompts and {cost['tokens_out']:,} of answers"
        f"{price}."
    )


def interpret(
    questions: Questions, asker: Asker, latents: Sequence[Interpretation]
) -> list[Interpretation]:
    """Explain every latent, then test its sentence on it, and that of the next latent.

    Raises EndpointError where the model cannot be asked at all, or explains none of them; answers
    so far are kept.
    """
    explained = asker.each("explain", lambda one: _explained(questions, asker, one), latents)
    having = [one for one in explained if one.explanation]
    following = {}
    if questions.config.shuffled and len(having) > 1:
        following = {a.latent: b for a, b in zip(having, having[1:] + having[:1], strict=True)}
    judged = asker.each(
        "judge", lambda one: _judged(questions, asker, one, following.get(one.latent)), having
    )
    of_latent = {one.latent: one for one in judged}
    found = [of_latent.get(one.latent, one) for one in explained]
    _check_answers(found, asker.model.name)
    return found


def _explained(questions: Questions, asker: Asker, one: Interpretation) -> Interpretation:
    try:
        sentence = asker.ask(questions.explain(one.examples), read_explanation)
    except UnansweredError as error:
        return replace(one, failed=f"no explanation {error}")
    return replace(one, explanation=sentence)


def _judged(
    questions: Questions, asker: Asker, one: Interpretation, other: Interpretation | None
) -> Interpretation:
    """The scores of one latent, as far as its questions were answered."""
    for kind in KINDS:
        items = questions.items(one.examples, kind)
        try:
            if items:
                own = _graded(questions, asker, kind, one.explanation, items)
                one = replace(one, own={**one.own, kind: own})
            if items and other:
                theirs = _graded(questions, asker, kind, other.explanation, items)
                shuffled = {**one.shuffled, kind: theirs}
                one = replace(one, shuffled=shuffled, other=other.latent)
        except UnansweredError as error:
            return replace(one, failed=f"no judgement ({kind}) {error}")
    return one


def _graded(
    questions: Questions, asker: Asker, kind: Kind, explanation: str, items: Sequence[Item]
) -> Judged:
    grades: list[float] = []
    for batch in questions.requests(items):
        messages = questions.judge(kind, explanation, batch)
        grades += asker.ask(messages, partial(read_grades, count=len(batch)))
    truths = [item.truth for item in items]
    return Judged(items, grades, score_of(truths, grades, questions.config.graded))


def _check_answers(found: Sequence[Interpretation], model: str) -> None:
    """Say which latents got no answer. Raises EndpointError where none got one."""
    failed = [one for one in found if one.failed]
    if not failed:
        return
    first = f"latent {failed[0].latent}: {failed[0].failed}"
    if not any(one.explanation for one in found):
        raise EndpointError(
            f"{model} must explain {len(found)} latents; it gave no answer that could be used for "
            f"any ({first}). Check the model, then run the same command again."
        )
    note(
        f"{len(failed)} of {len(found)} latents got no answer ({first}). The same command asks "
        "again, for what is missing only."
    )


def plain(text: str) -> str:
    """A text on one line, without characters that look like marks."""
    return re.sub(r"\s", _visible, text).translate(NO_MARKS)


def _visible(space: re.Match[str]) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": ""}.get(space[0], " ")


def marked(example: TextExample, marks: Sequence[bool], read: Callable[[int], str]) -> str:
    """An example as text, its marked tokens between << and >>; adjacent ones share a pair."""
    parts, inside = [], False
    for token, mark in zip(example.tokens, marks, strict=True):
        if mark != inside:
            parts.append(OPEN if mark else CLOSE)
            inside = mark
        parts.append(plain(read(token)))
    return "".join(parts).strip() + (CLOSE if inside else "")


def explain_messages(
    shown: Sequence[TextExample], maximum: float, mark_threshold: float, read: Callable[[int], str]
) -> Messages:
    """Ask for an explanation, from examples with their marks and activations."""
    lines = []
    for number, example in enumerate(shown, 1):
        marks = example.marks(mark_threshold)
        active = ", ".join(
            f"{_quoted(read(token))} {max(1, round(STEPS * value / maximum))}"
            for token, value, on in zip(example.tokens, example.values, marks, strict=True)
            if on
        )
        lines.append(f"{number}. {marked(example, marks, read)}\nActive: {active}")
    return (("system", EXPLAIN), ("user", "\n\n".join(lines)))


def _quoted(text: str) -> str:
    return json.dumps(plain(text), ensure_ascii=False)


def judge_messages(kind: Kind, explanation: str, texts: Sequence[str], graded: bool) -> Messages:
    """Ask which of some examples fit an explanation."""
    task = DETECTION if kind == "detection" else FUZZING
    numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
    return (
        ("system", f"{task}\n\n{GRADED if graded else PLAIN}"),
        ("user", f"Explanation: {explanation}\n\n{numbered}"),
    )


def read_explanation(answer: str) -> str:
    """The sentence after the last `Explanation:`. Raises UnusableAnswerError."""
    found = re.findall(r"explanation\W*:[\s*\]\"]*(.+)", answer, re.IGNORECASE)
    sentence = " ".join(found[-1].translate(CONTROL).split()).strip('*" ') if found else ""
    if not re.search(r"\w", sentence):
        raise UnusableAnswerError('it has no line that begins with "Explanation:"')
    return sentence


def read_grades(answer: str, count: int) -> tuple[float, ...]:
    """The last list of `count` numbers from 0 to 1. Raises UnusableAnswerError."""
    for text in reversed(re.findall(r"\[[^\[\]]*\]", answer)):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, numbers of too many digits, deep nesting
            continue
        numbers = all(type(value) in (int, float) and 0 <= value <= 1 for value in values)
        if len(values) == count and numbers:
            return tuple(float(value) for value in values)
    raise UnusableAnswerError(f"it has no list of {count} numbers from 0 to 1")
