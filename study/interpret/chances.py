"""Log-probabilities of an answer: which numbers a model might have written in place of each one.

A server that offers them lists the likeliest tokens at each place of its answer. Of these only the
numbers are kept, so that an answer with its log-probabilities stays small.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

HIGHEST = 10  # the numbers that are asked for go from 0 to this
NUMBER = re.compile(r"\d{1,2}")


@final
@dataclass(frozen=True)
class Chance:
    """A token of an answer that is a number: the `start` of its digits in the text, these digits,
    and the probabilities of all numbers among the likeliest tokens, as the tokens are spelt. Of a
    token that follows a number they are kept, too: it may continue the number."""

    start: int
    token: str
    numbers: tuple[tuple[str, float], ...]


Chances = tuple[Chance, ...]


def chances_of(listed: object, text: str) -> Chances:
    """The chances in `choices[0].logprobs.content` of a completion whose answer is `text`.

    Empty where there are none, or where the tokens do not spell the text.
    """
    if not isinstance(listed, list) or not listed:
        return ()
    try:
        pieces = [_bytes(one) for one in listed]
        whole = b"".join(pieces).decode()
        begin = whole.rfind(text) if text else -1
        if begin < 0:
            return ()
        found, before, after_number = [], 0, False
        for one, piece in zip(listed, pieces, strict=True):
            word = piece.decode("utf-8", "replace")
            digits = NUMBER.fullmatch(word.strip()) is not None
            if digits or after_number:
                place = len(b"".join(pieces[:before]).decode())
                place += (len(word) - len(word.lstrip()) if digits else 0) - begin
                found.append(Chance(place, word.strip(), _numbers(one["top_logprobs"])))
            after_number, before = digits, before + 1
    except (KeyError, TypeError, ValueError, AttributeError):
        return ()
    return tuple(chance for chance in found if 0 <= chance.start <= len(text))


def _bytes(one: Mapping[str, Any]) -> bytes:
    """The bytes of a token. Its text alone cannot hold a part of a letter."""
    listed = one.get("bytes")
    return bytes(listed) if isinstance(listed, list) else str(one["token"]).encode()


def _numbers(top: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    pairs = [(str(one["token"]), math.exp(float(one["logprob"]))) for one in top]
    return tuple((t, p) for t, p in pairs if NUMBER.fullmatch(t.strip()) and p > 0)


def expected_number(written: str, start: int, chances: Mapping[int, Chance]) -> float | None:
    """The expected value of a number of an answer: E = sum_n p(n) n / sum_n p(n), over the numbers
    n from 0 to 10 among the likeliest tokens.

    `written` stands at `start`; `chances` are by their start. Where a tokeniser writes 10 as 1 and
    0, the probability of 1 is divided by that of a 0 behind it, which is known where 1 was written.
    None where the chances do not belong to the number.
    """
    chance = chances.get(start)
    if chance is None or chance.token not in (written, "1"):
        return None
    follows = chances.get(start + len(chance.token))
    if chance.token != written and not (written == "10" and follows and follows.token == "0"):
        return None
    ten = sum(p for token, p in follows.numbers if token == "0") if follows else 0.0
    total = mean = 0.0
    for token, p in chance.numbers:
        value = int(token)
        if value > HIGHEST:
            continue
        if value == 1 and chance.token == "1":
            mean += p * ((1 - ten) + ten * HIGHEST)
        else:
            mean += p * value
        total += p
    return mean / total if total > 0 else None
