"""Sources of text: files, folders, Hugging Face datasets, and the docstrings of Python.

A source yields documents, always the same ones in the same order.
"""

import ast
import difflib
import hashlib
import json
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, final

from .. import order
from ..errors import ConfigError, InputsNotFoundError, UnreadableInputsError
from .hugging_face import HUGGING_FACE, is_on_disk, open_table

SUFFIXES = (".txt", ".md", ".rst")
LINES = (".jsonl", ".ndjson")
DOCSTRINGS = "docstrings"
CODE = (">>>", "...")  # prefixes of lines of example code
MIX = 0xD0C5  # the key of the order of the standard library's files
SHORTEST = 80  # characters in a docstring; shorter ones are skipped
SURROGATE = re.compile("[\ud800-\udfff]")  # halves of a pair of UTF-16, which no text may hold
SHOWN = 10  # keys of a row in a message
SAMPLE = 4096  # bytes in which the encoding of a file shows
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
class TextSource:
    """Documents in order.

    `key` identifies them as far as possible without reading them, and `origin` is their place on
    this machine. `left_out` counts the rows without text; reading from the start resets it.
    """

    key: dict[str, Any]
    origin: str
    documents: Callable[[], Iterator[str]]
    left_out: Count = field(default_factory=Count)


def open_text(inputs: str, column: str = "text", streaming: bool = False) -> TextSource:
    """The documents that `inputs` names.

    A file .txt, .md or .rst is one document. A .jsonl file has one document per line, in `column`.
    A folder has the documents of all such files below it, in the order of their names.
    `hf:NAME_OR_PATH[@SPLIT]` is a dataset of the `datasets` library with one document per row; with
    `streaming` it is not downloaded first. `docstrings` are those of Python's standard library.
    Rows whose text is None (null in JSON) are left out and counted.

    Raises InputsNotFoundError, ConfigError. Reading documents raises UnreadableInputsError if a
    file is not UTF-8, a line is not JSON or a text has a lone surrogate, and ConfigError if a row
    has something other than text in `column`.
    """
    if inputs == DOCSTRINGS:
        return _docstrings()
    if inputs.startswith(HUGGING_FACE):
        return _hugging_face(inputs.removeprefix(HUGGING_FACE), column, streaming)
    place = Path(inputs)
    if inputs and place.is_file():
        return _files([place], place, column)
    if not inputs or not place.is_dir():
        raise InputsNotFoundError(
            f"--inputs must be a file or folder of text, {HUGGING_FACE}NAME or {DOCSTRINGS}; got "
            f"{inputs!r}, which does not exist{_near(place)}. Check the path."
        )
    if is_on_disk(place):
        return _hugging_face(inputs, column, streaming)
    found = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES + LINES)
    if not found:
        raise InputsNotFoundError(
            f"--inputs must be a folder of text; got {place}, which holds none in any of its "
            f"subfolders ({', '.join(SUFFIXES + LINES)})."
        )
    return _files(found, place, column)


def _near(place: Path) -> str:
    if not place.name or not place.parent.is_dir():
        return ""
    names = [p.name for p in place.parent.iterdir()]
    near = difflib.get_close_matches(place.name, names, n=3, cutoff=0.6)
    return f" (near names are {', '.join(near)})" if near else ""


def _files(files: list[Path], origin: Path, column: str) -> TextSource:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            whole = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{file.suffix}:{whole}:".encode(errors="surrogateescape"))

    left_out = Count()

    def documents() -> Iterator[str]:
        left_out.rows = 0
        for file in files:
            text = _decoded(file)
            if file.suffix.lower() in LINES:
                yield from _lines(text, file, column, left_out)
            else:
                yield text

    key = {"kind": "files", "column": column, "digest": digest.hexdigest()}
    return TextSource(key, str(origin), documents, left_out)


def _decoded(file: Path) -> str:
    content = file.read_bytes()
    if encoding := _wide_encoding(content[:SAMPLE]):
        raise UnreadableInputsError(
            f"{file} must be UTF-8; got {encoding}. Convert it, e.g. with "
            f"`iconv -f {encoding} -t UTF-8`."
        )
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        what = f"{file} must be UTF-8; got the byte 0x{content[error.start]:02x} at {error.start:,}"
        if b"\0" in content[:SAMPLE]:
            raise UnreadableInputsError(
                f"{what}, and zero bytes: it is probably no text. Give --inputs a file of text."
            ) from error
        raise UnreadableInputsError(
            f"{what}. Convert it, e.g. with `iconv -f LATIN1 -t UTF-8`."
        ) from error


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


def _lines(text: str, file: Path, column: str, left_out: Count) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
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
        found = _text_of(row, column, f"line {number} of {file}")
        if found is None:
            left_out.rows += 1
        else:
            yield found


def _text_of(row: Mapping[str, Any], column: str, where: str) -> str | None:
    """The text of a row, or None if the row says that it has none. `where` names the row.

    Raises ConfigError if the row has no such column or something other than text there, and
    UnreadableInputsError if the text has a lone surrogate, which no tokenizer takes.
    """
    if column not in row:
        has = ", ".join([*map(str, islice(row, SHOWN)), *(["..."] if len(row) > SHOWN else [])])
        raise ConfigError(
            f"{where} must have its text under {column!r}; got {has or 'no keys'}. Name the right "
            "key with --column."
        )
    text = row[column]
    if text is None:
        return None
    if not isinstance(text, str):
        raise ConfigError(
            f"{where} must have a string under {column!r}; got {type(text).__name__}. "
            f"{_instead_of(text)}"
        )
    if not text.isascii() and (lone := SURROGATE.search(text)):
        raise UnreadableInputsError(
            f"{where} must have Unicode text under {column!r}; got the lone surrogate "
            f"U+{ord(lone[0]):04X} at character {lone.start():,}. Replace it, e.g. by U+FFFD."
        )
    return text


def _instead_of(value: object) -> str:
    """What to do about something that is no text."""
    listed = isinstance(value, (list, tuple)) or hasattr(value, "tolist")
    if listed and all(isinstance(item, int) for item in value):  # type: ignore[attr-defined]
        return "Token ids are not taken: name the column of the text with --column."
    if listed or isinstance(value, dict):
        return "Name another column with --column, or write each text as a row of its own."
    if isinstance(value, bytes):
        return "Name another column with --column, or decode the bytes to strings first."
    return "Name the column that holds the text with --column."


def _hugging_face(name: str, column: str, streaming: bool) -> TextSource:
    path, _, split = name.partition("@")
    table = open_table(path, split, "text", streaming)
    columns = list(table.features or {column: None})
    if column not in columns:
        raise ConfigError(
            f"--column must be one of {', '.join(columns)}, the columns of the dataset {path!r}; "
            f"got {column!r}. Name the column that holds the text."
        )
    left_out = Count()

    def documents() -> Iterator[str]:
        left_out.rows = 0
        for number, row in enumerate(table):
            text = _text_of(row, column, f"row {number:,} (from 0) of the dataset {path!r}")
            if text is None:
                left_out.rows += 1
            else:
                yield text

    known = getattr(table, "_fingerprint", None)  # a stream has none, only its name
    key = {"kind": "hugging-face", "name": name, "column": column, "fingerprint": known}
    origin = name if Path(path).exists() else f"{HUGGING_FACE}{name}"
    return TextSource(key, origin, documents, left_out)


def _docstrings() -> TextSource:
    """The longer docstrings of the standard library, without lines of code.

    Files come in a shuffled order, so that the first documents cover many topics.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}

    def documents() -> Iterator[str]:
        files = sorted(folder.rglob("*.py"))
        for number in order.permutation(len(files), MIX).tolist():
            if skipped.isdisjoint(files[number].relative_to(folder).parts):
                yield from _of_module(files[number])

    key = {"kind": DOCSTRINGS, "version": 2, "python": sysconfig.get_python_version()}
    return TextSource(key, DOCSTRINGS, documents)


def _of_module(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (
        SyntaxError,
        ValueError,
        RecursionError,
    ):  # some files of the library are invalid on purpose
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            lines = (ast.get_docstring(node) or "").splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith(CODE))
            if len(text) >= SHORTEST:
                yield text
