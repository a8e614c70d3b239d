"""Files of text, read by blocks and lines, so that memory does not grow with the file."""

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, final

from ..errors import ConfigError, UnreadableInputsError
from .files import is_regular

LINES = (".jsonl", ".ndjson")
SAMPLE = 4096  # bytes in which the encoding of a file shows
WHOLE = 1 << 22  # bytes up to which a file of text is read whole
BLOCK = 1 << 20  # bytes of a longer file that are read at a time
MOST_LINE = 2**31  # bytes of a line of JSON
HASHED_WHOLE = 2**32  # bytes of all files of a source up to which each byte is part of its key
ENDS = 1 << 16  # bytes at both ends of a file that are part of the key of a larger source
BYTE_ORDER = (  # UTF-32 first: its mark begins with that of UTF-16
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


@final
@dataclass
class Count:
    """The rows without text (None) among those read so far. They are left out."""

    rows: int = 0


@final
@dataclass(frozen=True)
class Blocks:
    """The text of a long file, in blocks that are read as they are asked for."""

    file: Path

    def __iter__(self) -> Iterator[str]:
        decoder, end, start = codecs.getincrementaldecoder("utf-8")(), 0, b""
        with _opened(self.file) as content:
            while True:
                raw = content.read(BLOCK)
                first, end = end == 0, end + len(raw)
                if first:
                    start = raw[:SAMPLE]
                    _check_wide(self.file, start)
                try:
                    text = decoder.decode(raw, final=not raw)
                except UnicodeDecodeError as error:
                    raise _not_utf8(self.file, error, end - len(error.object), start) from error
                if text := text.removeprefix("\ufeff") if first else text:
                    yield text
                if not raw:
                    return


COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}

Document = TypeVar("Document")
Read = Callable[[Mapping[str, Any], str], Document | None]
"""A row, and the words that name it -> its document, or None if it has none."""


def key_of_files(files: Sequence[Path]) -> str:
    """A digest of files, in hex: of each byte, or, of more than HASHED_WHOLE bytes in all, of the
    sizes, the times of the last change, and both ends of each."""
    digest = hashlib.sha256()
    whole = sum(file.stat().st_size for file in files) <= HASHED_WHOLE
    for file in files:
        with file.open("rb") as content:
            if whole:
                found = hashlib.file_digest(content, "sha256").hexdigest()
            else:
                about = file.stat()
                found = f"{about.st_size}:{about.st_mtime_ns}:"
                found += hashlib.sha256(content.read(ENDS)).hexdigest()
                content.seek(max(about.st_size - ENDS, 0))
                found += hashlib.sha256(content.read(ENDS)).hexdigest()
        digest.update(f"{file.suffix}:{found}:".encode(errors="surrogateescape"))
    return digest.hexdigest()


def documents_of(
    file: Path, column: str, read: Read[Document], left_out: Count
) -> Iterator[Document]:
    """The documents of a file: one a line of JSON, or the whole text. `read` gives the document of
    a row; rows without one are counted."""
    if file.suffix.lower() in LINES:
        yield from _lines(file, column, read, left_out)
        return
    text: str | Blocks = Blocks(file)
    if file.stat().st_size <= WHOLE:
        text = "".join(text)
    if (document := read({column: text}, str(file))) is not None:
        yield document


def _opened(file: Path) -> BinaryIO:
    """Raises OSError for a pipe, a device or a folder, which might never end."""
    if file.exists() and not is_regular(file):
        raise OSError("not a regular file")
    return file.open("rb")


def _check_wide(file: Path, start: bytes) -> None:
    if encoding := _wide_encoding(start):
        raise UnreadableInputsError(
            f"{file} must be UTF-8; got {encoding}. Convert it, e.g. with "
            f"`iconv -f {encoding} -t UTF-8`."
        )


def _not_utf8(
    file: Path, error: UnicodeDecodeError, offset: int, start: bytes
) -> UnreadableInputsError:
    """The error for bytes that are not UTF-8. What was decoded begins at `offset` in the file."""
    byte, place = error.object[error.start], offset + error.start
    what = f"{file} must be UTF-8; got the byte 0x{byte:02x} at {place:,}"
    for mark, program in COMPRESSED.items():
        if start.startswith(mark):
            return UnreadableInputsError(f"{what}: it is compressed. Unpack it with {program} -d.")
    if b"\0" in start:
        return UnreadableInputsError(
            f"{what}, and zero bytes: it is probably no text. Give --inputs a file of text."
        )
    return UnreadableInputsError(f"{what}. Convert it, e.g. with `iconv -f LATIN1 -t UTF-8`.")


def _wide_encoding(start: bytes) -> str:
    """UTF-16 or UTF-32, as iconv calls it, if a file begins like one; else an empty string.

    Without a byte-order mark they show in zero bytes at the same places of each four, because most
    characters of most texts are below U+0100. Such bytes are valid UTF-8 too, so they would become
    text full of U+0000.
    """
    for mark, encoding in BYTE_ORDER:
        if start.startswith(mark):
            return encoding
    zeros = [start[place::4].count(0) * 4 / max(len(start), 8) for place in range(4)]
    for encoding, full in (("UTF-16LE", "1010"), ("UTF-16BE", "0101"), ("UTF-32LE", "1000")):
        if all(
            share < 0.05 if one == "1" else share > 0.4
            for share, one in zip(zeros, full, strict=True)
        ):
            return encoding
    return ""


def _decoded_lines(file: Path) -> Iterator[str]:
    with _opened(file) as content:
        start = content.read(SAMPLE)
        _check_wide(file, start)
        content.seek(0)
        offset = 0
        while raw := content.readline(MOST_LINE):
            if len(raw) == MOST_LINE:
                raise UnreadableInputsError(
                    f"a line of {file} must be shorter than {MOST_LINE:,} bytes; the one at byte "
                    f"{offset:,} is longer. Write each document on a line of its own."
                )
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(file, error, offset, start) from error
            yield line if offset else line.removeprefix("\ufeff")
            offset += len(raw)


def _lines(file: Path, column: str, read: Read[Document], left_out: Count) -> Iterator[Document]:
    for number, line in enumerate(_decoded_lines(file), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError also of integers too long
            why = getattr(error, "msg", "") or str(error)
            if isinstance(error, RecursionError):
                why = "its brackets are nested too deeply"
            raise UnreadableInputsError(
                f"{file} must have a JSON object on each line; line {number} is not JSON "
                f"({why}). Correct or remove it."
            ) from error
        if not isinstance(row, dict):
            raise ConfigError(
                f"line {number} of {file} must be a JSON object with its text under {column!r}; "
                f"got {type(row).__name__}. Correct or remove it."
            )
        found = read(row, f"line {number} of {file}")
        if found is None:
            left_out.rows += 1
        else:
            yield found
