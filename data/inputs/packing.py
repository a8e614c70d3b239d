"""Pack documents into contexts: end to end, one a context, or several that are kept apart.

Packing is a pure function of the documents and the cut, so that context number i is always the
same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Int32, Int64

BLOCK = 1 << 14  # tokens of a long document that are packed at a time
NOBODY = -1  # the document of padding, and the role of a token that belongs to no message
ROLES = ("system", "user", "assistant", "tool")  # as numbered in the column `role`
OTHER = len(ROLES)  # the number of any other role
BITS = 32  # of a packed item that hold the token; the others hold the role, from 1

Items: TypeAlias = Int64[np.ndarray, " t"]
"""Tokens of a context, with the role of each in the upper bits."""


@final
@dataclass(frozen=True)
class Cut:
    """How tokens become contexts.

    A context has `length` tokens. It begins with `prefix` and ends with `suffix`. `between`
    separates documents and belongs to the second one. `special` lists the tokens that stand for
    no text.

    `packing` says how documents share a context. `joined`: end to end, cut every `body` tokens.
    `alone`: a context has one document, a longer one takes several contexts. `apart`: end to end,
    each with its own prefix and suffix. The last two fill what is left of a context with `pad`, and
    drop nothing. `roles` is True if tokens carry the role of the message that they belong to.
    """

    length: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    special: tuple[int, ...] = ()
    packing: Literal["joined", "alone", "apart"] = "joined"
    pad: int = 0
    roles: bool = False

    @property
    def body(self) -> int:
        """The number of tokens of text in a context."""
        return self.length - len(self.prefix) - len(self.suffix)

    def identity(self) -> dict[str, Any]:
        """The fields, without those that were added later and are at their defaults."""
        later = {"packing": "joined", "pad": 0, "roles": False}
        return {k: v for k, v in asdict(self).items() if k not in later or v != later[k]}


def pack(
    documents: Iterable[Iterable[int]], cut: Cut
) -> Iterator[tuple[Items, Int32[np.ndarray, " t"]]]:
    """Yield contexts as (items, documents). An item is a token, with a role if `cut` has `roles`.

    A document may be an iterator: it is read as contexts are asked for, and to its end before the
    next document. Packed `joined`, the rest at the end that does not fill a context is dropped.
    """
    return _joined(documents, cut) if cut.packing == "joined" else _padded(documents, cut)


def _joined(
    documents: Iterable[Iterable[int]], cut: Cut
) -> Iterator[tuple[Items, Int32[np.ndarray, " t"]]]:
    tokens: list[int] = []
    owners: list[int] = []
    for number, document in enumerate(documents):
        ahead = cut.between if number else ()
        for block in _blocks(document):
            tokens += [*ahead, *block]
            owners += [number] * (len(ahead) + len(block))
            ahead = ()
            whole = len(tokens) // cut.body * cut.body
            for start in range(0, whole, cut.body):
                body, of = tokens[start : start + cut.body], owners[start : start + cut.body]
                first, last = [of[0]] * len(cut.prefix), [of[-1]] * len(cut.suffix)
                yield _arrays([*cut.prefix, *body, *cut.suffix], [*first, *of, *last])
            del tokens[:whole], owners[:whole]


def _padded(
    documents: Iterable[Iterable[int]], cut: Cut
) -> Iterator[tuple[Items, Int32[np.ndarray, " t"]]]:
    """Each part of a document that lies in one context has a prefix and a suffix of its own.
    Documents without tokens are left out."""
    frame = len(cut.prefix) + len(cut.suffix)
    tokens: list[int] = []
    owners: list[int] = []

    def filled() -> tuple[Items, Int32[np.ndarray, " t"]]:
        rest = cut.length - len(tokens)
        return _arrays([*tokens, *[cut.pad] * rest], [*owners, *[NOBODY] * rest])

    for number, document in enumerate(documents):
        words, full = iter(document), cut.packing == "alone" and bool(tokens)
        while True:
            room = cut.length - len(tokens) - frame
            full |= room < 1
            part = list(islice(words, cut.body if full else room))
            if not part:
                break
            if full:
                yield filled()
                tokens, owners, full = [], [], False
            tokens += [*cut.prefix, *part, *cut.suffix]
            owners += [number] * (len(part) + frame)
    if tokens:
        yield filled()


def with_role(tokens: Iterable[int], roles: Iterable[int]) -> list[int]:
    """Items of a document, for a cut with `roles`. A role is a number of ROLES, OTHER or NOBODY."""
    return [(role + 1) << BITS | token for token, role in zip(tokens, roles, strict=True)]


def tokens_and_roles(items: Items) -> tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]:
    """The tokens and roles of a context."""
    return (items & ((1 << BITS) - 1)).astype(np.int32), (items >> BITS).astype(np.int32) - 1


def _blocks(document: Iterable[int]) -> Iterator[Sequence[int]]:
    """At least one block, also of an empty document, whose separator counts."""
    if isinstance(document, Sequence):
        yield document
        return
    rest = iter(document)
    yield list(islice(rest, BLOCK))
    while block := list(islice(rest, BLOCK)):
        yield block


def _arrays(items: list[int], owners: list[int]) -> tuple[Items, Int32[np.ndarray, " t"]]:
    return np.array(items, np.int64), np.array(owners, np.int32)
