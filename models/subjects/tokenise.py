"""How texts become tokens and contexts of a language model."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, cast

from tendril.data.errors import SubjectError
from tendril.data.inputs.packing import Cut

from .language import LanguageSubject


def cut_for(subject: LanguageSubject, length: int) -> Cut:
    """How texts are cut into contexts of `length` tokens for a model.

    Each context begins with the tokenizer's begin-of-text token, which also separates documents;
    if there is none, the end-of-text token separates them. The contexts of an encoder also end
    with its separator token, which then separates documents.
    """
    tokenizer = subject.tokenizer
    first = tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id
    last = tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id
    special = tuple(sorted(set(tokenizer.all_special_ids)))
    if subject.kind == "encoder":
        ends = tuple(token for token in (last,) if token is not None)
        begins = tuple(token for token in (first,) if token is not None)
        return Cut(length, begins, ends, ends, special)
    between = last if first is None else first
    ahead = () if first is None else (first,)
    return Cut(length, ahead, (), () if between is None else (between,), special)


def padded_cut(subject: LanguageSubject, length: int, packing: Literal["alone", "apart"]) -> Cut:
    """How texts are cut into contexts that padding fills, of one document or of several that are
    kept apart. Each part of a document begins and ends as a context of `cut_for` does.

    Padding is the tokenizer's own token, else the one that ends or begins a text, else token 0.
    """
    tokenizer = subject.tokenizer
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id)
    pad = next((t for t in known if t is not None and t < subject.vocabulary), 0)
    return replace(cut_for(subject, length), between=(), packing=packing, pad=pad)


def tokens_of(subject: LanguageSubject) -> Callable[[list[str]], list[list[int]]]:
    """A function from texts to token ids without special tokens.

    Text that looks like a special token is tokenised as ordinary text. The function raises
    SubjectError for a token that the network has no embedding for.
    """

    def tokenise(texts: list[str]) -> list[list[int]]:
        encoding = subject.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        ids = cast(list[list[int]], encoding["input_ids"])
        if subject.beyond:
            check_known(subject, (token for text in ids for token in text))
        return ids

    return tokenise


def check_known(subject: LanguageSubject, tokens: Iterable[int]) -> None:
    """Raise SubjectError if the network has no embedding for one of the tokens."""
    for token in tokens:
        if token >= subject.vocabulary:
            raise SubjectError(
                f"token ids must be below the vocabulary of {subject.name}, {subject.vocabulary}; "
                f"the text has {subject.beyond.get(token, '')!r}, which is {token}. Remove it from "
                "the text."
            )
