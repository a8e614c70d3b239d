"""Sources of text: files, folders, Hugging Face datasets, and the docstrings of Python.

A source yields documents, always the same ones in the same order.
"""

import ast
import difflib
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, final

from .. import order
from ..cli import note
from ..errors import ConfigError, InputsNotFoundError, UnreadableInputsError
from .files import is_regular, listed, say_skipped
from .hugging_face import (
    HUGGING_FACE,
    holds_parquet,
    is_on_disk,
    is_parquet,
    name_and_split,
    open_table,
)
from .text_files import LINES, Blocks, Count, Document, Read, documents_of, key_of_files

SUFFIXES = (".txt", ".md", ".rst")
TABLES = (".json", ".csv", ".tsv")  # files that probably hold many documents
DOCSTRINGS = "docstrings"
CODE = (">>>", "...")  # prefixes of lines of example code
MIX = 0xD0C5  # the key of the order of the standard library's files
SHORTEST = 80  # characters in a docstring; shorter ones are skipped
SURROGATE = re.compile("[\ud800-\udfff]")  # halves of a pair of UTF-16, which no text may hold
SHOWN = 10  # keys of a row in a message

HELD: dict[str, "TextSource"] = {}  # what this program holds, by the name it has (memory.py)


@final
@dataclass(frozen=True)
class TextSource:
    """Documents in order.

    `key` identifies them as far as possible without reading them, and `origin` is their place on
    this machine. The text of a long file comes in blocks. `left_out` counts the rows without text;
    reading from the start resets it.
    """

    key: dict[str, Any]
    origin: str
    documents: Callable[[], Iterator[str | Blocks]]
    left_out: Count = field(default_factory=Count)


@final
@dataclass(frozen=True)
class IdSource:
    """Documents as token ids, in order. The fields are those of TextSource."""

    key: dict[str, Any]
    origin: str
    documents: Callable[[], Iterator[list[int]]]
    left_out: Count


def open_ids(
    inputs: str, vocabulary: int, column: str = "text", streaming: bool = False
) -> IdSource:
    """The documents that `inputs` names, whose `column` holds the ids of their tokens.

    `inputs` is what `open_text` takes, except files of plain text and `docstrings`. Raises what
    `open_text` raises. Reading documents raises ConfigError if a row has something other than a
    list of integers from 0 to `vocabulary` - 1.
    """
    if inputs == DOCSTRINGS:
        raise ConfigError(
            "--token-ids needs a dataset or .jsonl files with a column of token ids; got "
            f"{inputs}, which is text. Leave out --token-ids."
        )

    def ids_of(row: Mapping[str, Any], where: str) -> list[int] | None:
        return _ids_of(cell(row, column, where), f"{where} under {column!r}", vocabulary)

    return IdSource(*opened(inputs, column, streaming, ids_of))


def open_text(inputs: str, column: str = "text", streaming: bool = False) -> TextSource:
    """The documents that `inputs` names.

    A file .txt, .md or .rst is one document. A .jsonl file has one document per line, in `column`.
    A folder has the documents of all such files below it, in the order of their names. A parquet
    file, a folder of such files or `hf:NAME_OR_PATH[@SPLIT]` is a dataset of the `datasets` library
    with one document per row; with `streaming` it is read as it comes, without a copy on this
    machine, as a single parquet file always is. `docstrings` are those
    of Python's standard library. Rows whose text is None (null in JSON) are left out and counted.

    Raises InputsNotFoundError, ConfigError. Reading documents raises UnreadableInputsError if a
    file is not UTF-8, a line is not JSON or a text has a lone surrogate, and ConfigError if a row
    has something other than text in `column`.
    """
    if inputs in HELD or inputs == DOCSTRINGS:
        return HELD[inputs] if inputs in HELD else _docstrings()

    def text_of(row: Mapping[str, Any], where: str) -> Any:  # mypy would join its types to object
        return _text_of(cell(row, column, where), where, column)

    return TextSource(*opened(inputs, column, streaming, text_of))


def opened(
    inputs: str,
    column: str,
    streaming: bool,
    read: Read[Document],
) -> tuple[dict[str, Any], str, Callable[[], Iterator[Document]], Count]:
    """The fields of a source. `read` gives the document of a row, or None if it has none."""
    if inputs.startswith(HUGGING_FACE):
        return _hugging_face(inputs.removeprefix(HUGGING_FACE), column, streaming, read)
    place = Path(inputs)
    path, split = name_and_split(inputs)
    if (split and Path(path).exists()) or (inputs and (is_parquet(place) or is_on_disk(place))):
        return _hugging_face(inputs, column, streaming, read)
    if inputs and is_regular(place):
        if place.suffix.lower() in TABLES:
            note(
                f"warning: {place} is read as plain text, which is one document. For a document a "
                f"row, give a file {LINES[0]} with a JSON object on each line, or a parquet file."
            )
        return _files([place], place, column, read)
    if not inputs or not place.is_dir():
        what = "is a pipe or a device" if inputs and place.exists() else "does not exist"
        raise InputsNotFoundError(
            f"--inputs must be a file or folder of text, {HUGGING_FACE}NAME or {DOCSTRINGS}; got "
            f"{inputs!r}, which {what}{_near(place)}. Check the path."
        )
    found, skipped, irregular = listed(place, _is_text)
    if not found and holds_parquet(place):
        return _hugging_face(inputs, column, streaming, read)
    say_skipped(skipped, f"text ({', '.join(SUFFIXES + LINES)})", "text")
    say_skipped(irregular, "regular", "regular")
    if not found:
        raise InputsNotFoundError(
            f"--inputs must be a folder of text; got {place}, which holds none in any of its "
            f"subfolders ({', '.join(SUFFIXES + LINES)})."
        )
    return _files(sorted(place / name for name in found), place, column, read)


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES + LINES


def _near(place: Path) -> str:
    if not place.name or place.exists() or not place.parent.is_dir():
        return ""
    names = [p.name for p in place.parent.iterdir()]
    near = difflib.get_close_matches(place.name, names, n=3, cutoff=0.6)
    return f" (near names are {', '.join(near)})" if near else ""


def _files(
    files: list[Path], origin: Path, column: str, read: Read[Document]
) -> tuple[dict[str, Any], str, Callable[[], Iterator[Document]], Count]:
    left_out = Count()

    def documents() -> Iterator[Document]:
        left_out.rows = 0
        for file in files:
            yield from documents_of(file, column, read, left_out)

    key = {"kind": "files", "column": column, "digest": key_of_files(files)}
    return key, str(origin), documents, left_out


def cell(row: Mapping[str, Any], column: str, where: str, what: str = "its text") -> Any:
    """A cell of a row; `where` names the row. Raises ConfigError if it has no such column."""
    if column not in row:
        has = ", ".join([*map(str, islice(row, SHOWN)), *(["..."] if len(row) > SHOWN else [])])
        raise ConfigError(
            f"{where} must have {what} under {column!r}; got {has or 'no keys'}. Name the right "
            "key with --column."
        )
    return row[column]


def _text_of(text: Any, where: str, column: str) -> str | Blocks | None:
    """The text of a cell, or None if the cell says that it has none.

    Raises ConfigError for something other than text, and UnreadableInputsError if the text has a
    lone surrogate, which no tokenizer takes.
    """
    if text is None or isinstance(text, Blocks):
        return text
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


def _ids_of(cell: Any, where: str, vocabulary: int) -> list[int] | None:
    """The token ids of a cell, or None if the cell says that it has none. Raises ConfigError."""
    if cell is None:
        return None
    ids = cell.tolist() if hasattr(cell, "tolist") else cell
    if not isinstance(ids, list | tuple):
        raise ConfigError(
            f"{where} must have a list of token ids; got {_kind(ids)}. Name the column of "
            "ids with --column, or leave out --token-ids."
        )
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool):
            raise ConfigError(
                f"{where} must have whole numbers as token ids; got {type(token).__name__}. Name "
                "the column of ids with --column, or leave out --token-ids."
            )
        if not 0 <= token < vocabulary:
            raise ConfigError(
                f"{where} must have token ids from 0 to {vocabulary - 1:,}, the vocabulary of the "
                f"model; got {token:,}. Give the ids of this model's tokenizer, or the text."
            )
    return list(ids)


def _kind(value: object) -> str:
    """The type of a cell in words."""
    return "str" if isinstance(value, Blocks) else type(value).__name__


def _instead_of(value: object) -> str:
    """What to do about something that is no text."""
    listed = isinstance(value, (list, tuple)) or hasattr(value, "tolist")
    if listed and all(isinstance(item, int) for item in value):  # type: ignore[attr-defined]
        return (
            "Token ids are not taken without --token-ids: pass it, or name the column of the text "
            "with --column."
        )
    if listed or isinstance(value, dict):
        return "Name another column with --column, or write each text as a row of its own."
    if isinstance(value, bytes):
        return "Name another column with --column, or decode the bytes to strings first."
    return "Name the column that holds the text with --column."


def _hugging_face(
    name: str, column: str, streaming: bool, read: Read[Document]
) -> tuple[dict[str, Any], str, Callable[[], Iterator[Document]], Count]:
    path, split = name_and_split(name)
    one = is_parquet(path)  # read as it is: `datasets` would copy it into its cache first
    table = open_table(path, split, "text", streaming or one)
    columns = list(table.features or {column: None})
    if column not in columns:
        raise ConfigError(
            f"--column must be one of {', '.join(columns)}, the columns of the dataset {path!r}; "
            f"got {column!r}. Name the column that holds the text."
        )
    left_out = Count()

    def documents() -> Iterator[Document]:
        left_out.rows = 0
        for number, row in enumerate(_rows(table, path)):
            document = read(row, f"row {number:,} (from 0) of the dataset {path!r}")
            if document is None:
                left_out.rows += 1
            else:
                yield document

    known = key_of_files([Path(path)]) if one else getattr(table, "_fingerprint", None)
    # a stream has none, only its name
    key = {"kind": "hugging-face", "name": name, "column": column, "fingerprint": known}
    origin = name if Path(path).exists() else f"{HUGGING_FACE}{name}"
    return key, origin, documents, left_out


def _rows(table: Any, path: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a dataset. Raises UnreadableInputsError where a part of it is damaged."""
    rows = iter(table)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except MemoryError:
            raise
        except Exception as error:  # what damaged files raise has no common type
            raise UnreadableInputsError(
                f"the rows of the dataset {path!r} cannot be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). Check that its files are whole."
            ) from error
        yield row


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
