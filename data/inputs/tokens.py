"""Pack text into contexts: documents' tokens end to end, cut at a fixed length.

Packing is a pure function of the documents, the tokenizer and the cut, so that context number i is
always the same. Packed text is kept on disk (in tokens/ next to store/). So slices can be read in
any order, a stopped harvest resumes exactly, and a streamed dataset is fetched only once.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int32

from ..cli import note
from ..errors import ConfigError, StoreLockedError
from ..store.atomic import check_not_link, is_alive, locked
from ..store.spec import canonical_json
from .text_files import Blocks, Count
from .texts import IdSource, TextSource

VERSION = 2  # of packing; to be raised if contexts change (2: None is left out)
BATCH = 256  # documents in a call of the tokenizer
LONG = 1 << 20  # characters in a call; a longer document is tokenised in pieces
BLOCK = 1 << 14  # tokens of a long document that are packed at a time
LEFT_OUT = "left_out"  # file with the number of rows without text, if there are any
ASIDE = re.compile(r"[0-9a-f]{16}\.\d+")  # temporary folders: a key and a process
HASHED = 1 << 12  # contexts whose digest is computed at a time


@final
@dataclass(frozen=True)
class TokenSource:
    """Tokenised documents in a fixed order. `key` identifies them.

    `left_out` counts the rows without text, as in TextSource.
    """

    key: dict[str, Any]
    origin: str
    documents: Callable[[], Iterator[Iterable[int]]]
    left_out: Count = field(default_factory=Count)


@final
@dataclass(frozen=True)
class Cut:
    """How tokens become contexts.

    A context has `length` tokens. It begins with `prefix` and ends with `suffix`. `between`
    separates documents and belongs to the second one. `special` lists the tokens that stand for
    no text.
    """

    length: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    special: tuple[int, ...] = ()

    @property
    def body(self) -> int:
        """The number of tokens of text in a context."""
        return self.length - len(self.prefix) - len(self.suffix)


@final
@dataclass(frozen=True)
class Contexts:
    """Packed text: tokens, and the number of the document that each token belongs to.

    The prefix and suffix of a context belong to the adjacent document. `digest` identifies the
    tokens and documents. `left_out` rows of the source had no text.
    """

    tokens_BT: Int32[np.ndarray, "b t"]
    documents_BT: Int32[np.ndarray, "b t"]
    cut: Cut
    digest: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.tokens_BT)

    def kept(self, inputs: range, skip_special: bool, skip_first: int) -> Bool[np.ndarray, "b t"]:
        """True for the positions to keep in some contexts.

        Leaves out special tokens and the first `skip_first` positions.
        """
        tokens_BT = self.tokens_BT[inputs.start : inputs.stop]
        kept_BT = np.ones(tokens_BT.shape, bool)
        if skip_special:
            kept_BT &= ~np.isin(tokens_BT, self.cut.special)
        kept_BT[:, :skip_first] = False
        return kept_BT


def pack(
    documents: Iterable[Iterable[int]], cut: Cut
) -> Iterator[tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]]:
    """Yield contexts as (tokens, documents): documents end to end, cut every `cut.body` tokens.

    The rest at the end that does not fill a context is dropped. A document may be an iterator: it
    is read as contexts are asked for, and to its end before the next document.
    """
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
                end = start + cut.body
                yield _framed(tokens[start:end], owners[start:end], cut)
            del tokens[:whole], owners[:whole]


def _blocks(document: Iterable[int]) -> Iterator[Sequence[int]]:
    """At least one block, also of an empty document, whose separator counts."""
    if isinstance(document, Sequence):
        yield document
        return
    rest = iter(document)
    yield list(islice(rest, BLOCK))
    while block := list(islice(rest, BLOCK)):
        yield block


def _framed(
    body: list[int], owners: list[int], cut: Cut
) -> tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]:
    first, last = [owners[0]] * len(cut.prefix), [owners[-1]] * len(cut.suffix)
    return (
        np.array([*cut.prefix, *body, *cut.suffix], np.int32),
        np.array([*first, *owners, *last], np.int32),
    )


def contexts_of(source: TokenSource, cut: Cut, limit: int | None, folder: Path) -> Contexts:
    """The contexts of a source, at most `limit`. They are packed once and kept in `folder`.

    What is kept is held against its digest, and packed again, with a note, if it is damaged. Notes
    how many rows were left out because they have no text. Raises ConfigError if the text
    does not fill one context, and the errors of the source.
    """
    if cut.body < 1:
        raise ConfigError(
            f"--context must be larger than the {cut.length - cut.body} special tokens of a "
            f"context; got {cut.length}."
        )
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1 context; got {limit}.")
    about = {"version": VERSION, "source": source.key, "cut": asdict(cut), "limit": limit}
    place = folder / hashlib.sha256(canonical_json(about).encode()).hexdigest()[:16]
    check_not_link(folder)
    _sweep(folder)
    kept = _kept(place, cut)
    if kept is None:
        if place.is_symlink():
            place.unlink()
        if place.exists():
            note(f"warning: the packed text in {place} is damaged. It is packed again.")
            shutil.rmtree(place)
        _keep(place, islice(pack(source.documents(), cut), limit), cut, source)
        kept = _kept(place, cut)
        assert kept is not None, "packed text was written a moment ago"
    if kept.left_out:
        note(f"warning: {kept.left_out:,} rows of {source.origin} have no text and were left out.")
    return kept


def _kept(place: Path, cut: Cut) -> Contexts | None:
    """The contexts in a folder; None unless they are whole."""
    try:
        left_out, check = (0, "")
        if (place / LEFT_OUT).is_file():
            count, _, check = (place / LEFT_OUT).read_text().partition("\n")
            left_out = int(count)
            if check and check != _check_of(left_out):  # earlier versions wrote none
                return None
        tokens_BT, documents_BT = (
            np.load(place / f"{name}.npy", mmap_mode="r") for name in ("tokens", "documents")
        )
        contexts = Contexts(tokens_BT, documents_BT, cut, (place / "digest").read_text(), left_out)
        for part in (tokens_BT, documents_BT):
            if part.dtype != np.int32 or part.shape != (len(tokens_BT), cut.length):
                return None
        digest = hashlib.sha256()
        for start in range(0, len(contexts), HASHED):
            at = slice(start, start + HASHED)
            digest.update(np.stack([tokens_BT[at], documents_BT[at]], axis=1).tobytes())
    except Exception:  # numpy raises errors of many kinds for a damaged header
        return None
    return contexts if digest.hexdigest() == contexts.digest else None


def _check_of(left_out: int) -> str:
    return hashlib.sha256(str(left_out).encode()).hexdigest()[:16]


def tokenised(
    text: TextSource,
    tokenise: Callable[[list[str]], list[list[int]]],
    tokenizer: str,
    pieces: Callable[[str | Blocks], Iterable[str]] = lambda text: ("".join(text),),
) -> TokenSource:
    """A source of tokens from a source of text. `tokenizer` is the digest of the tokenizer.

    `pieces` cuts a long text into parts whose tokens, end to end, are those of the text. Long
    documents are tokenised part by part, as contexts are asked for.
    """

    def in_pieces(document: str | Blocks) -> Iterator[int]:
        for piece in pieces(document):
            yield from tokenise([piece])[0]

    def documents() -> Iterator[Iterable[int]]:
        for batch in _batches(text.documents()):
            if isinstance(batch, Blocks) or len(batch[0]) > LONG:
                yield in_pieces(batch if isinstance(batch, Blocks) else batch[0])
            else:
                yield from tokenise(batch)

    key = {"text": text.key, "tokenizer": tokenizer}
    return TokenSource(key, text.origin, documents, text.left_out)


def given_ids(ids: IdSource, tokenizer: str) -> TokenSource:
    """A source of tokens whose ids a dataset gives."""
    key = {"ids": ids.key, "tokenizer": tokenizer}
    return TokenSource(key, ids.origin, ids.documents, ids.left_out)


def _batches(documents: Iterable[str | Blocks]) -> Iterator[list[str] | Blocks]:
    """At most BATCH documents, and LONG characters, in a call; longer documents alone."""
    batch: list[str] = []
    characters = 0
    for document in documents:
        if isinstance(document, Blocks):
            if batch:
                yield batch
            batch, characters = [], 0
            yield document
            continue
        if batch and characters + len(document) > LONG:
            yield batch
            batch, characters = [], 0
        batch.append(document)
        characters += len(document)
        if len(batch) == BATCH or characters > LONG:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _keep(
    place: Path,
    contexts: Iterator[tuple[Int32[np.ndarray, " t"], Int32[np.ndarray, " t"]]],
    cut: Cut,
    source: TokenSource,
) -> None:
    """Write contexts to a temporary folder as they come, and rename it at the end."""
    aside = place.with_name(f"{place.name}.{os.getpid()}")
    aside.mkdir(parents=True, exist_ok=True)
    digest, count = hashlib.sha256(), 0
    try:
        with (
            locked(aside),
            (aside / "tokens").open("wb") as tokens,
            (aside / "documents").open("wb") as documents,
        ):
            for tokens_T, documents_T in contexts:
                tokens.write(tokens_T.tobytes())
                documents.write(documents_T.tobytes())
                digest.update(tokens_T.tobytes())
                digest.update(documents_T.tobytes())
                count += 1
        left_out = source.left_out.rows
        if not count:
            empty = f" ({left_out:,} rows without text were left out)" if left_out else ""
            raise ConfigError(
                f"the text of {source.origin} is shorter than one context of {cut.length} "
                f"tokens{empty}. Give --inputs more text, or use a smaller --context."
            )
        for name in ("tokens", "documents"):
            _as_npy(aside / name, (count, cut.length))
        if left_out:
            (aside / LEFT_OUT).write_text(f"{left_out}\n{_check_of(left_out)}")
        (aside / "digest").write_text(digest.hexdigest())
        if not (place / "digest").is_file():
            shutil.rmtree(place, ignore_errors=True)
            aside.replace(place)
    except OSError as error:
        if not (place / "digest").is_file():  # otherwise another process was first
            raise error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove the temporary folders of processes that died while they packed text."""
    for left in folder.glob("*.*"):
        if not ASIDE.fullmatch(left.name) or left.is_symlink() or is_alive(int(left.suffix[1:])):
            continue
        with suppress(StoreLockedError), locked(left):  # of a process on another machine
            shutil.rmtree(left)


def _as_npy(raw: Path, shape: tuple[int, int]) -> None:
    """Turn a file of raw int32 into a .npy file, which np.load can map into memory."""
    values = np.memmap(raw, np.int32, "r", shape=shape)
    np.save(raw.with_suffix(".npy"), values)
    raw.unlink()
