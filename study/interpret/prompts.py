"""What an explainer and a judge are asked, and how their answers are read.

The tasks are those of Paulo, Mallen, Juang and Belrose, Automatically Interpreting Millions of
Features in Large Language Models (2410.13928; EleutherAI's Delphi). An explanation is written from
examples in which the tokens that activate a latent are marked <<so>>. `detection` asks which other
examples activate it; `fuzzing` asks in which examples the right tokens are marked. The wording is
ours; another wording would lose the answers that were kept.
"""

import json
import re
from collections.abc import Callable, Sequence

from ..measures.text_examples import TextExample
from .asking import Messages, UnusableAnswerError
from .config import Kind

OPEN, CLOSE = "<<", ">>"
NO_MARKS = {ord("<"): 0x2039, ord(">"): 0x203A}  # what looks like marks in a text
STEPS = 10  # the scale on which the explainer sees activations

CONTROL = dict.fromkeys(
    (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), " "
)
"""What a sentence must not hold: control characters, and marks that reverse the direction."""

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
