"""Sources of text: files, folders, Hugging Face datasets, and the docstrings of Python.

A source yields documents, always the same ones in the same order.
"""

import ast
import difflib
import hashlib
import json
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


@final
@dataclass(frozen=True)
class TextSource:
    """Documents in order.

    `key` identifies them as far as possible without reading them, and `origin` is their place on
    this machine.
    """

    key: dict[str, Any]
    origin: str
    documents: Callable[[], Iterator[str]]


def open_text(inputs: str, column: str = "text", streaming: bool = False) -> TextSource:
    """The documents that `inputs` names.

    A file .txt, .md or .rst is one document. A .jsonl file has one document per line, in `column`.
    A folder has the documents of all such files below it, in the order of their names.
    `hf:NAME_OR_PATH[@SPLIT]` is a dataset of the `datasets` library with one document per row; with
    `streaming` it is not downloaded first. `docstrings` are those of Python's standard library.

    Raises InputsNotFoundError, ConfigError. Reading documents raises UnreadableInputsError if a
    file is not UTF-8 or a line is not JSON.
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
        digest.update(f"{file.suffix}:{whole}:".encode())

    def documents() -> Iterator[str]:
        for file in files:
            text = _decoded(file)
            if file.suffix.lower() in LINES:
                yield from _lines(text, file, column)
            else:
                yield text

    key = {"kind": "files", "column": column, "digest": digest.hexdigest()}
    return TextSource(key, str(origin), documents)


def _decoded(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnreadableInputsError(
            f"{file} must be UTF-8; got the byte 0x{content[error.start]:02x} at "
            f"{error.start:,}. Convert it, e.g. with `iconv -f LATIN1 -t UTF-8`."
        ) from error


def _lines(text: str, file: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UnreadableInputsError(
                f"{file} must have a JSON object on each line; line {number} is not JSON "
                f"({error.msg}). Correct or remove it."
            ) from error
        if not isinstance(row, dict) or not isinstance(row.get(column), str):
            has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise ConfigError(
                f"line {number} of {file} must have its text under {column!r}; got {has}. Name the "
                "right key with --column."
            )
        yield row[column]


def _hugging_face(name: str, column: str, streaming: bool) -> TextSource:
    path, _, split = name.partition("@")
    table = open_table(path, split, "text", streaming)
    columns = list(table.features or {column: None})
    if column not in columns:
        raise ConfigError(
            f"--column must be one of {', '.join(columns)}, the columns of the dataset {path!r}; "
            f"got {column!r}. Name the column that holds the text."
        )
    known = getattr(table, "_fingerprint", None)  # a stream has none, only its name
    key = {"kind": "hugging-face", "name": name, "column": column, "fingerprint": known}
    origin = name if Path(path).exists() else f"{HUGGING_FACE}{name}"
    return TextSource(key, origin, lambda: (str(row[column]) for row in table))


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
    except SyntaxError:  # some files of the library are invalid on purpose
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            lines = (ast.get_docstring(node) or "").splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith(CODE))
            if len(text) >= SHORTEST:
                yield text
