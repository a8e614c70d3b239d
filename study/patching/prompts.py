"""Generated pairs of prompts that differ in one name, for any tokenizer: who is spoken to?

The task is indirect object identification (Wang et al. 2211.00593): of two names, the one that
does not speak or give comes next. The `dialogue` templates use words after which a model of
children's stories predicts names at all, and `conversa` is in Portuguese, spelled as around 1900.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Literal

import numpy as np
import torch

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.tokenise import cut_for, tokens_of

from ..measures.activation_patching import Pairs

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "dialogue": (
        '{a} and {b} were playing. {speaker} said, "Thank you,',
        '{a} saw {b} in the park. {speaker} said, "Hello,',
        '{a} and {b} had a ball. {other} gave the ball to {speaker}. {speaker} said, "Thank you,',
        '{a} and {b} went to the park. {speaker} gave a toy to {other} and said, "Here you are,',
        '{a} and {b} were friends. {speaker} looked at {other} and said, "Hello,',
        '{a} and {b} were playing. {speaker} ran to {other}. {speaker} said, "I am sorry,',
        'One day, {a} and {b} went to the park. {speaker} said to {other}, "Thank you,',
        '{a} and {b} like to play. {speaker} hugged {other} and said, "I love you,',
    ),
    "ioi": (
        "{a} and {b} went to the park. {speaker} gave a ball to",
        "{a} and {b} went to the store. {speaker} gave a drink to",
        "Then, {a} and {b} had a long argument. Afterwards {speaker} said to",
        "When {a} and {b} were at the school, {speaker} decided to give a book to",
        "One day, {a} and {b} were in the garden. {speaker} gave a flower to",
        "Once upon a time, {a} and {b} found a toy. {speaker} gave the toy to",
        "{a} and {b} were good friends. {speaker} gave a cake to",
        "After {a} and {b} went to the house, {speaker} gave the red hat to",
    ),
    "conversa": (
        "{a} e {b} estavam na sala. {speaker} disse a",
        "{a} e {b} foram ao jardim. {speaker} deu uma flor a",
        "{a} e {b} eram amigos. {speaker} escreveu uma carta a",
        "Um dia, {a} e {b} foram ao theatro. {speaker} deu o bilhete a",
        "{a} foi á casa de {b}. {speaker} falou a",
        "Quando {a} e {b} chegaram, {speaker} deu o livro a",
        "{a} e {b} sahiram juntos. {speaker} contou tudo a",
        "{a} e {b} estavam na rua. {speaker} deu a mão a",
    ),
}
NAMES = (
    *("Lily", "Tim", "Timmy", "Tom", "Ben", "Sam", "Max", "Mia", "Sue", "Anna", "Bob", "Jack"),
    *("Sara", "Lucy", "Amy", "John", "Mary", "Jane", "Bill", "Kate", "Mark", "Paul", "Emma"),
    *("Alice", "David", "James", "Peter", "Sarah", "Laura", "Simon", "Julia", "Martin", "Fred"),
)
PORTUGUESE = (
    *("Rubião", "Sophia", "Flora", "Maria", "Capitú", "Ayres", "Pedro", "Paulo", "Anna", "Carlos"),
    *("Helena", "Estella", "Jorge", "Luiz", "Julia", "Clara", "Bento", "Rita", "Camillo"),
)
Prompts = Literal["dialogue", "ioi", "conversa"]
Change = Literal["name", "same-name", "speaker"]
ENOUGH = 8  # with so many names of one token, longer names are not used


def generated_pairs(
    subject: LanguageSubject,
    count: int,
    seed: int,
    change: Change,
    names: Sequence[str] = (),
    prompts: Prompts = "dialogue",
) -> Pairs:
    """`count` different pairs, a pure function of (tokenizer, seed).

    In the base prompt A speaks, so B comes next. In the counterfactual prompt, `speaker`: B speaks,
    so A comes next; `name`: another name C stands wherever B did; `same-name`: the same, with the
    same B and C in all pairs. Names are single tokens if there are enough of these. Otherwise the
    names of a pair have equally many tokens and different first ones, so that their answers
    differ. Raises ConfigError where the tokenizer leaves too few names.
    """
    templates = TEMPLATES[prompts]
    pieces = _pieces(subject, names or (PORTUGUESE if prompts == "conversa" else NAMES))
    wanted = 2 if change == "speaker" else 3
    fitting = [drawn for drawn in permutations(pieces, wanted) if _alike(drawn, pieces)]
    if change == "same-name" and fitting:
        first = fitting[int(order.permutation(len(fitting), seed)[0])]
        fitting = [drawn for drawn in fitting if drawn[1:] == first[1:]]
    possible = len(fitting) * len(templates)
    if possible < count:
        raise ConfigError(
            f"--pairs must be at most {possible}, the pairs of prompts of equal length that "
            f"{len(pieces)} names make with the tokenizer of {subject.name}; got {count}. Ask for "
            "fewer pairs, or give more --names."
        )
    texts, answers = [], []
    for number in order.permutation(possible, seed)[:count].tolist():
        template = templates[number % len(templates)]
        a, b, *other = fitting[number // len(templates)]
        c = other[0] if other else a
        base = template.format(a=a, b=b, speaker=a, other=b)
        renamed = template.format(a=a, b=c, speaker=a, other=c)
        swapped = template.format(a=a, b=b, speaker=b, other=a)
        texts.append((base, swapped if change == "speaker" else renamed))
        answers.append((pieces[b][0], pieces[c][0]))
    return paired(subject, texts, answers)


def paired(
    subject: LanguageSubject, texts: Sequence[tuple[str, str]], answers: Sequence[tuple[int, int]]
) -> Pairs:
    """Pairs of texts, and of the tokens that should come next, as tensors.

    Raises ConfigError where the two texts of a pair differ in length or are the same.
    """
    begin = list(cut_for(subject, 1).prefix)
    tokenise = tokens_of(subject)
    bases, counters = (tokenise([pair[side] for pair in texts]) for side in (0, 1))
    for base, counter, pair in zip(bases, counters, texts, strict=True):
        if len(base) != len(counter) or base == counter:
            raise ConfigError(
                "the prompts of a pair must differ and have equally many tokens; got "
                f"{len(base)} ({pair[0]!r}) and {len(counter)} ({pair[1]!r}). Choose other --names."
            )
    lengths = [len(begin) + len(base) for base in bases]
    filled = np.zeros((2, len(texts), max(lengths)), np.int64)
    for side, prompts in enumerate((bases, counters)):
        for row, prompt in enumerate(prompts):
            filled[side, row, : lengths[row]] = begin + prompt
    base_PT, counter_PT = torch.from_numpy(filled)
    return Pairs(base_PT, counter_PT, torch.tensor(lengths) - 1, torch.tensor(answers), texts)


def _pieces(subject: LanguageSubject, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The tokens of each name after another word; only of single-token names, if there are
    enough."""
    tokenise = tokens_of(subject)
    (before,) = tokenise(["to"])
    found: dict[str, tuple[int, ...]] = {}
    for name, tokens in zip(names, tokenise([f"to {name}" for name in names]), strict=True):
        if tokens[: len(before)] == before and len(tokens) > len(before):
            found[name] = tuple(tokens[len(before) :])
    longer = {name for name, pieces in found.items() if len(pieces) > 1}
    if len(found) - len(longer) < ENOUGH:
        return found
    return {name: pieces for name, pieces in found.items() if name not in longer}


def _alike(names: Sequence[str], pieces: Mapping[str, tuple[int, ...]]) -> bool:
    """True if the names have equally many tokens and different first ones."""
    lengths = {len(pieces[name]) for name in names}
    return len(lengths) == 1 and len({pieces[name][0] for name in names}) == len(names)
