"""Classes of tokens, by how a tokenizer spells them, and buckets of positions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from transformers import PreTrainedTokenizerBase

CLASSES = ("special", "newline", "digit", "punctuation", "word begin", "word continuation")
MARKS = ("▁", "Ġ")  # SentencePiece and byte-level BPE: a word begins here
CONTINUED = "##"  # WordPiece: a word continues here


def token_classes(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> Int64[np.ndarray, " vocabulary"]:
    """The class of each token, as its number in CLASSES.

    A token with a letter begins a word if it begins with a space, in the tokenizer's own mark for
    one. If a tokenizer marks neither beginnings nor continuations, every token begins a word. A
    byte that is no text by itself counts as a continuation, and a single space as a beginning.
    """
    known = min(vocabulary, len(tokenizer))
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(range(known)))]
    special = set(tokenizer.all_special_ids)
    marked = any(piece.startswith(MARKS) for piece in pieces)
    # tokens that the network has and the tokenizer does not are special
    found = np.full(vocabulary, CLASSES.index("special"))
    for token, piece in enumerate(pieces):
        if token not in special:
            text = str(tokenizer.decode([token]))
            begins = piece.startswith(MARKS) if marked else not piece.startswith(CONTINUED)
            found[token] = CLASSES.index(_class_of(text, begins))
    return found


def _class_of(text: str, begins: bool) -> str:
    bare = text.strip().removeprefix(CONTINUED).lstrip("".join(MARKS))
    if "\n" in text or "\r" in text:
        return "newline"
    if bare and all(c.isdigit() for c in bare):
        return "digit"
    if bare and "\ufffd" not in bare and not any(c.isalnum() for c in bare):
        return "punctuation"
    return "word begin" if begins else "word continuation"


def position_buckets(length: int) -> list[tuple[int, int]]:
    """First and last position of each bucket: 1-2, 3-4, 5-8, 9-16, ... up to `length - 1`."""
    last, found = 2, [(1, min(2, length - 1))]
    while last < length - 1:
        found.append((last + 1, min(2 * last, length - 1)))
        last *= 2
    return found


def bucket_of(length: int, buckets: Sequence[tuple[int, int]]) -> Int64[np.ndarray, " length"]:
    """The number of each position's bucket; -1 for position 0, which nothing predicts."""
    ends = np.array([last for _, last in buckets])
    number = np.searchsorted(ends, np.arange(length))
    number[0] = -1
    return number.astype(np.int64)
