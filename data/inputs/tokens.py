"""Pack text into contexts: documents' tokens end to end, cut at a fixed length.

Packing is a pure function of the documents, the tokenizer and the cut, so that context number i is
always the same. Packed text is kept on disk (in tokens/ next to store/). So slices can be read in
any order, a stopped harvest resumes exactly, and a streamed dataset is fetched only once.
"""

import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int32

from ..cli import note, progress_bar
from ..errors import ConfigError, StoreLockedError
from ..store.atomic import check_not_link, is_alive, locked
from ..store.spec import canonical_json
from .packing import NOBODY, Cut, Items, pack, tokens_and_roles
from .text_files import Blocks, Count
from .texts import IdSource, TextSource

VERSION = 2  # of packing; to be raised if contexts change (2: None is left out)
BATCH = 256  # documents in a call of the tokenizer
LONG = 1 << 20  # characters in a call; a longer document is tokenised in pieces
LEFT_OUT = "left_out"  # file with the number of rows without text, if there are any
ASIDE = re.compile(r"[0-9a-f]{16}\.\d+")  # temporary folders: a key and a process
COPIED = 1 << 22  # bytes of a file that are copied at a time
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
class Contexts:
    """Packed text: tokens, and the number of the document that each token belongs to.

    The prefix and suffix of a context belong to the adjacent document; padding belongs to none
    (-1). `digest` identifies tokens, documents and roles. `left_out` rows of the source had no
    text. `roles_BT` are the roles of chats: numbers of ROLES, or -1 for a token of no message.
    """

    tokens_BT: Int32[np.ndarray, "b t"]
    documents_BT: Int32[np.ndarray, "b t"]
    cut: Cut
    digest: str
    left_out: int = 0
    roles_BT: Int32[np.ndarray, "b t"] | None = None

    def __len__(self) -> int:
        return len(self.tokens_BT)

    def release(self) -> None:
        """Take the parts that were read out of memory. They stay on disk."""
        for part in (self.tokens_BT, self.documents_BT, self.roles_BT):
            mapped = getattr(part, "_mmap", None)
            if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def kept(self, inputs: range, skip_special: bool, skip_first: int) -> Bool[np.ndarray, "b t"]:
        """True for the positions to keep in some contexts.

        Leaves out padding, special tokens and the first `skip_first` positions.
        """
        tokens_BT = self.tokens_BT[inputs.start : inputs.stop]
        kept_BT: Bool[np.ndarray, "b t"]
        kept_BT = np.asarray(self.documents_BT[inputs.start : inputs.stop]) != NOBODY
        if skip_special:
            kept_BT &= ~np.isin(tokens_BT, self.cut.special)
        kept_BT[:, :skip_first] = False
        return kept_BT


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
    about = {"version": VERSION, "source": source.key, "cut": cut.identity(), "limit": limit}
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
        _keep(place, islice(pack(source.documents(), cut), limit), cut, source, limit)
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
        parts = [np.load(place / f"{name}.npy", mmap_mode="r") for name in _names(cut)]
        if any(p.dtype != np.int32 or p.shape != (len(parts[0]), cut.length) for p in parts):
            return None
        digest = hashlib.sha256()
        for some in _read_together([place / f"{name}.npy" for name in _names(cut)], parts):
            digest.update(some.tobytes())
        contexts = Contexts(
            parts[0],
            parts[1],
            cut,
            (place / "digest").read_text(),
            left_out,
            parts[2] if cut.roles else None,
        )
    except Exception:  # numpy raises errors of many kinds for a damaged header
        return None
    return contexts if digest.hexdigest() == contexts.digest else None


def _names(cut: Cut) -> tuple[str, ...]:
    """The files of packed text, without their suffix."""
    return ("tokens", "documents", "roles") if cut.roles else ("tokens", "documents")


def _read_together(
    files: Sequence[Path], parts: Sequence[Int32[np.ndarray, "b t"]]
) -> Iterator[Int32[np.ndarray, "b n t"]]:
    """Rows of several .npy files, HASHED of each at a time. They are read and not taken from the
    mapped arrays, whose pages would stay in memory."""
    count, length = parts[0].shape
    with ExitStack() as stack:
        opened = [stack.enter_context(file.open("rb")) for file in files]
        for file, part in zip(opened, parts, strict=True):
            file.seek(getattr(part, "offset", 0))
        for start in range(0, count, HASHED):
            some = min(HASHED, count - start)
            read = [np.fromfile(file, np.int32, some * length) for file in opened]
            yield np.stack([one.reshape(some, length) for one in read], axis=1)


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


def rendered(chats: IdSource, tokenizer: str, template: str) -> TokenSource:
    """A source of the tokens of chats. `tokenizer` is the digest of the tokenizer, and `template`
    the text of its chat template."""
    digest = hashlib.sha256(template.encode()).hexdigest()
    key = {"chats": chats.key, "tokenizer": tokenizer, "template": digest}
    return TokenSource(key, chats.origin, chats.documents, chats.left_out)


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
    contexts: Iterator[tuple[Items, Int32[np.ndarray, " t"]]],
    cut: Cut,
    source: TokenSource,
    limit: int | None,
) -> None:
    """Write contexts to a temporary folder as they come, and rename it at the end."""
    aside = place.with_name(f"{place.name}.{os.getpid()}")
    aside.mkdir(parents=True, exist_ok=True)
    digest, count, names = hashlib.sha256(), 0, _names(cut)
    about = {"desc": "pack", "unit": " contexts", "delay": 2.0, "dynamic_ncols": True}
    try:
        with (
            locked(aside),
            ExitStack() as stack,
            progress_bar(total=limit, leave=False, **about) as bar,
        ):
            files = [stack.enter_context((aside / name).open("wb")) for name in names]
            for items_T, documents_T in contexts:
                tokens_T, roles_T = tokens_and_roles(items_T)
                for part_T, file in zip((tokens_T, documents_T, roles_T), files, strict=False):
                    file.write(part_T.tobytes())
                    digest.update(part_T.tobytes())
                count += 1
                bar.update()
        left_out = source.left_out.rows
        if not count:
            empty = f" ({left_out:,} rows without text were left out)" if left_out else ""
            if cut.packing != "joined":
                raise ConfigError(
                    f"the text of {source.origin} has no tokens{empty}. Give --inputs more text."
                )
            raise ConfigError(
                f"the text of {source.origin} is shorter than one context of {cut.length} "
                f"tokens{empty}. Give --inputs more text, or use a smaller --context."
            )
        for name in names:
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
    header = {"descr": "<i4", "fortran_order": False, "shape": shape}
    with raw.open("rb") as values, raw.with_suffix(".npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(values, file, COPIED)
    raw.unlink()
