"""Datasets of the `datasets` library, from the Hugging Face hub or from this machine."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..cli import need, note
from ..errors import ConfigError, InputsNotFoundError
from ..store.labels import NO_CLASS, Labels
from .files import MOST_FILE_BYTES, irregular_files, read_file

HUGGING_FACE = "hf:"
PARQUET = ".parquet"
ON_DISK = ("dataset_info.json", "dataset_dict.json")  # files written by `save_to_disk`
LABEL = "label"  # the column of classes
FILE = {"bytes", "path"}  # the fields of a cell that holds a file
ON_HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # the form of a name on the hub
# What `datasets` says of a split that does not exist, with and without streaming.
NO_SPLIT = re.compile(r"(?:Unknown|Bad) split.*?\[(?P<splits>.*?)\]", re.DOTALL)


def is_on_disk(path: str | Path) -> bool:
    """True if a folder is a dataset written by `save_to_disk`."""
    return any((Path(path) / name).is_file() for name in ON_DISK)


def is_parquet(path: str | Path) -> bool:
    """True if a path is a single parquet file."""
    return Path(path).suffix.lower() == PARQUET and Path(path).is_file()


def holds_parquet(folder: Path) -> bool:
    """True if there is a parquet file in a folder or its subfolders."""
    return any(is_parquet(file) for file in folder.rglob(f"*{PARQUET}"))


def name_and_split(name: str) -> tuple[str, str]:
    """The parts of NAME_OR_PATH[@SPLIT]; a path of this machine may contain an @."""
    if Path(name).exists():
        return name, ""
    path, _, split = name.rpartition("@")
    return (path, split) if path else (name, "")


def open_table(path: str, split: str, kind: str, streaming: bool = False) -> Any:
    """One split of a dataset. `kind` names the dataset in messages.

    Raises InputsNotFoundError if it cannot be opened, and ConfigError if it has no such split, or
    several and `split` names none.
    """
    _check_place(path, kind)
    need(f"--inputs {path}", "datasets", extra="language" if kind == "text" else "vision")
    import datasets  # takes a second to import

    try:
        if is_on_disk(path):
            table = datasets.load_from_disk(path)
        elif is_parquet(path):
            table = datasets.load_dataset(
                "parquet", data_files=path, split=split or "train", streaming=streaming
            )
        else:
            table = datasets.load_dataset(path, split=split or None, streaming=streaming)
    except MemoryError:
        raise
    except Exception as error:  # of many types, e.g. where a file of the dataset is damaged
        if found := NO_SPLIT.search(str(error)):
            _refuse_split(path, split, kind, re.findall(r"[\w.-]+", found["splits"]))
        raise InputsNotFoundError(
            f"the {kind} {path!r} cannot be opened ({' '.join(str(error).split())[:200]}). Give "
            f"--inputs {HUGGING_FACE}NAME with a network connection, or the path of a dataset on "
            "this machine."
        ) from error
    if isinstance(table, dict):
        if split not in table and (split or len(table) != 1):
            _refuse_split(path, split, kind, list(table))
        table = table[split] if split else next(iter(table.values()))
    elif is_on_disk(path) and split and split != str(table.split):
        _refuse_split(path, split, kind, [str(table.split)] if table.split else [])
    if streaming and is_on_disk(path):
        table = table.to_iterable_dataset()
    return table


def _check_place(path: str, kind: str) -> None:
    """Raise InputsNotFoundError for a path that does not exist here, before the hub is asked, and
    for a dataset on this machine that has a file which is not regular: reading might never end."""
    place = Path(path)
    if place.exists():
        irregular = irregular_files(place) if place.is_dir() else []
        if irregular or not (place.is_dir() or place.is_file()):
            bad = place / irregular[0] if irregular else place
            raise InputsNotFoundError(
                f"the files of the {kind} {path!r} must be regular; {bad} is a pipe, a device or "
                "a broken link. Remove it."
            )
        return
    if place.suffix.lower() == PARQUET or not ON_HUB.fullmatch(path):
        raise InputsNotFoundError(
            f"the {kind} {path!r} cannot be opened: this machine has no such file or folder, and a "
            "name on the Hugging Face hub has the form NAME or OWNER/NAME. Check the path."
        )
    if place.parent != Path() and place.parent.is_dir():
        note(f"{place.parent} has no {place.name}; the Hugging Face hub is asked for {path}.")


def _refuse_split(path: str, split: str, kind: str, splits: Sequence[str]) -> NoReturn:
    if not splits:
        raise ConfigError(
            f"the {kind} {path!r} has no named splits; got {split!r}. Leave out @{split}."
        )
    raise ConfigError(
        f"a split of the {kind} {path!r} must be one of {', '.join(splits)}; got {split!r}. "
        f"Name one, e.g. --inputs {HUGGING_FACE}{path}@{splits[0]}."
    )


def image_column(table: Any, path: str) -> Any:
    """The first column of images of a table, each cell with its `bytes` or its `path`.

    Without such a column, the first one that holds the bytes and paths of files. Raises
    ConfigError if there is none.
    """
    import datasets

    kinds = table.features
    columns = [c for c, kind in kinds.items() if isinstance(kind, datasets.Image)]
    columns += [c for c, kind in kinds.items() if isinstance(kind, dict) and set(kind) == FILE]
    if not columns:
        raise ConfigError(
            f"the dataset {path!r} must have a column of images; it has "
            f"{', '.join(kinds)}. Give --inputs another dataset."
        )
    # of that column alone, as cells of the others may be unreadable
    return table.select_columns(columns[0]).cast_column(columns[0], datasets.Image(decode=False))


def label_column(table: Any, rows: Sequence[int]) -> Labels | None:
    """The classes of some rows of a table; None if it has none, or they cannot be read.

    They are in the first column of type ClassLabel, `label` before others, or else in a column of
    whole numbers named `label`, whose classes are then named by their numbers.
    """
    import datasets

    kinds = table.features
    of_classes = [c for c, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
    whole = str(getattr(kinds.get(LABEL), "dtype", "")).startswith(("int", "uint"))
    if not (of_classes or whole):
        return None
    column = LABEL if whole or LABEL in of_classes else of_classes[0]
    try:
        cells = table.select_columns([column]).with_format(None)[:][column]
    except MemoryError:
        raise
    except Exception as error:  # of many types, where the file of the column is damaged
        note(f"the column {column} cannot be read ({error}); the images have no classes.")
        return None
    known = [cells[row] for row in rows]
    if column in of_classes:
        names = [str(name) for name in kinds[column].names]
        number = {i: i for i in range(len(names))}
    else:
        values = sorted({cell for cell in cells if cell is not None})
        names, number = [str(value) for value in values], {v: i for i, v in enumerate(values)}
    found = [number.get(cell, NO_CLASS) for cell in known]
    return Labels(tuple(names), np.array(found, np.int32)) if len(names) > 1 else None


def cell_bytes(encoded: Any, row: int) -> bytes:
    """The file in a row of `image_column`. Raises OSError or ValueError if there is none.

    A path may lie within an archive of this machine: `zip://NAME::ARCHIVE`. Nothing is fetched
    from elsewhere.
    """
    cell = next(iter(encoded[row].values()))
    if not cell or not (cell["bytes"] or cell["path"]):
        raise ValueError("the cell is empty")
    if cell["bytes"]:
        whole: bytes = cell["bytes"]
        return whole
    path: str = cell["path"]
    if "::" not in path:
        return read_file(Path(path))
    import fsspec

    archive = path.rpartition("::")[2]
    if not Path(archive).is_file():
        raise OSError(f"{archive} is not a file of this machine")
    try:
        with fsspec.open(path, "rb") as file:
            whole = file.read(MOST_FILE_BYTES)
    except Exception as error:  # of many types, e.g. KeyError for a name that is not there
        raise OSError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    return whole
