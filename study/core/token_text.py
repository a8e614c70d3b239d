"""Tokens as readable text, with leading spaces, line breaks and letters of any alphabet."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPACE, BYTES, JOINED = "▁", "Ġ", "##"  # SentencePiece's, GPT-2's and WordPiece's marks
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # without tab and line breaks
_letters: Callable[[], dict[int, str]] = bytes_to_unicode
BYTE_OF = {letter: byte for byte, letter in _letters().items()}


def readable(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """The text of each token by itself, with a leading space where it begins a word.

    Bytes that are part of a letter only and control characters are escaped, as in `\\xe2`. A number
    that the tokenizer does not know is written as `<number>`.
    """
    pieces = tokenizer.convert_ids_to_tokens([int(token) for token in tokens])
    special, mark = set(tokenizer.all_special_tokens), _mark(tokenizer)
    return [
        CONTROL.sub(_escaped, _text(piece, mark))
        if piece is not None and piece not in special
        else piece or f"<{token}>"
        for token, piece in zip(tokens, pieces, strict=True)
    ]


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _text(piece: str, mark: str) -> str:
    byte = BYTE.fullmatch(piece)
    if byte:
        return bytes([int(byte[1], 16)]).decode("utf-8", "backslashreplace")
    if mark == BYTES and all(letter in BYTE_OF for letter in piece):
        return bytes(BYTE_OF[letter] for letter in piece).decode("utf-8", "backslashreplace")
    if mark == JOINED:
        return piece.removeprefix(JOINED) if piece.startswith(JOINED) else f" {piece}"
    return f" {piece}" if mark == " " else piece.replace(SPACE, " ")


def _mark(tokenizer: PreTrainedTokenizerBase) -> str:
    """How a vocabulary marks words: its most frequent mark. If it has none, a space where the
    tokenizer writes one between any two tokens, else nothing."""
    vocabulary = tokenizer.get_vocab()
    marks = (SPACE, BYTES, JOINED)
    seen = Counter(mark for piece in vocabulary for mark in marks if piece.startswith(mark))
    if seen:
        return seen.most_common(1)[0][0]
    plain = sorted(set(vocabulary.values()) - set(tokenizer.all_special_ids))[:2]
    joined: Any = tokenizer.decode(plain)
    return " " if len(plain) == 2 and " " in joined.strip() else ""
