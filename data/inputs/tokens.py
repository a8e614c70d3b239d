"""Text -> contexts: tokens packed end to end and cut at a fixed length.

Packing is a pure function of the documents, the tokenizer and the cut, so context number i is
the same whoever makes it. It is made once and kept (tokens/ beside store/), so that slices are
taken at random, a stopped harvest restarts exactly and nothing is fetched twice, also where
the text is a stream.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int32

from ..errors import ConfigError
from ..store.spec import canonical_json
from .cut import Cut as Cut
from .texts import TextSource

VERSION = 1  # of the way that text is cut
BATCH = 256  # documents given to the tokenizer at once


@final
@dataclass(frozen=True)
class TokenSource:
    """Documents as tokens, in order, always the same ones. `key` holds what decides which."""

    key: dict[str, Any]
    origin: str
    documents: Callable[[], Iterator[Sequence[int]]]


@final
@dataclass(frozen=True)
class Contexts:
    """Packed text: `tokens_BT`, and which document each token is of (what frames a context
    counts to the document beside it). `digest` tells one packed text from another."""

    tokens_BT: Int32[np.ndarray, "b t"]
    documents_BT: Int32[np.ndarray, "b t"]
    cut: Cut
    digest: str

    def __len__(self) -> int:
        return len(self.tokens_BT)

    def kept(self, inputs: range, skip_special: bool, skip_first: int) -> Bool[np.ndarray, "b t"]:
        """The positions of some contexts that are wanted: no special tokens, none of the first."""
        tokens_BT = self.tokens_BT[inputs.start : inputs.stop]
        kept_BT = np.ones(tokens_BT.shape, bool)
        if skip_special:
            kept_BT &= ~np.isin(tokens_BT, self.cut.special)
        kept_BT[:, :skip_first] = False
        return kept_BT


def pack(
    documents: Iterable[Sequence[int]], cut: Cut
) -> Iterator[tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]]:
    """Contexts, one after the other, as (tokens, documents): the documents end to end, cut
    every `cut.body` tokens. What is left at the end and fills no context is dropped."""
    tokens: list[int] = []
    owners: list[int] = []
    for number, document in enumerate(documents):
        ahead = cut.between if number else ()
        tokens += [*ahead, *document]
        owners += [number] * (len(ahead) + len(document))
        whole = len(tokens) // cut.body * cut.body
        for start in range(0, whole, cut.body):
            yield _framed(tokens[start : start + cut.body], owners[start : start + cut.body], cut)
        del tokens[:whole], owners[:whole]


def _framed(
    body: list[int], owners: list[int], cut: Cut
) -> tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]:
    first, last = [owners[0]] * len(cut.prefix), [owners[-1]] * len(cut.suffix)
    return (
        np.array([*cut.prefix, *body, *cut.suffix], np.int32),
        np.array([*first, *owners, *last], np.int32),
    )


def contexts_of(source: TokenSource, cut: Cut, limit: int | None, folder: Path) -> Contexts:
    """The contexts of a source, at most `limit`: made, or found in `folder` as they were made.

    Raises ConfigError where the text does not fill one context, and what reading the source
    raises.
    """
    if cut.body < 1:
        raise ConfigError(
            f"--context wants room for text beside {cut.length - cut.body} special tokens, and "
            f"got {cut.length}."
        )
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit wants a number of contexts from 1 on, and got {limit}.")
    about = {"version": VERSION, "source": source.key, "cut": asdict(cut), "limit": limit}
    place = folder / hashlib.sha256(canonical_json(about).encode()).hexdigest()[:16]
    if not (place / "digest").is_file():
        _keep(place, islice(pack(source.documents(), cut), limit), cut, source.origin)
    return Contexts(
        np.load(place / "tokens.npy", mmap_mode="r"),
        np.load(place / "documents.npy", mmap_mode="r"),
        cut,
        (place / "digest").read_text(),
    )


def tokenised(
    text: TextSource, tokenise: Callable[[list[str]], list[list[int]]], tokenizer: str
) -> TokenSource:
    """A text as tokens. `tokenizer` is the digest of what `tokenise` does."""

    def documents() -> Iterator[list[int]]:
        remaining = text.documents()
        while batch := list(islice(remaining, BATCH)):
            yield from tokenise(batch)

    return TokenSource({"text": text.key, "tokenizer": tokenizer}, text.origin, documents)


def _keep(
    place: Path,
    contexts: Iterator[tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]],
    cut: Cut,
    origin: str,
) -> None:
    """Write contexts as they come, aside, and put them in place when all are there."""
    aside = place.with_name(f"{place.name}.{os.getpid()}")
    aside.mkdir(parents=True, exist_ok=True)
    digest, count = hashlib.sha256(), 0
    try:
        with (aside / "tokens").open("wb") as tokens, (aside / "documents").open("wb") as documents:
            for tokens_T, documents_T in contexts:
                tokens.write(tokens_T.tobytes())
                documents.write(documents_T.tobytes())
                digest.update(tokens_T.tobytes())
                digest.update(documents_T.tobytes())
                count += 1
        if not count:
            raise ConfigError(
                f"the text of {origin} is shorter than one context of {cut.length} tokens; give "
                "--inputs more text, or a smaller --context."
            )
        for name in ("tokens", "documents"):
            _as_npy(aside / name, (count, cut.length))
        (aside / "digest").write_text(digest.hexdigest())
        if not (place / "digest").is_file():
            shutil.rmtree(place, ignore_errors=True)
            aside.replace(place)
    except OSError as error:
        if not (place / "digest").is_file():  # else another process was first
            raise error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _as_npy(raw: Path, shape: tuple[int, int]) -> None:
    """A file of raw int32 -> one with numpy's header, for np.load to map."""
    values = np.memmap(raw, np.int32, "r", shape=shape)
    np.save(raw.with_suffix(".npy"), values)
    raw.unlink()
