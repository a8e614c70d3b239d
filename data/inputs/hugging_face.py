"""Datasets of the `datasets` library, from the Hugging Face hub or from this machine."""

from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputsNotFoundError
from .decoding import MOST_FILE_BYTES, read_file

HUGGING_FACE = "hf:"
ON_DISK = ("dataset_info.json", "dataset_dict.json")  # files written by `save_to_disk`
FILE = {"bytes", "path"}  # the fields of a cell that holds a file


def is_on_disk(path: str | Path) -> bool:
    """True if a folder is a dataset written by `save_to_disk`."""
    return any((Path(path) / name).is_file() for name in ON_DISK)


def is_parquet(path: str | Path) -> bool:
    """True if a path is a single parquet file."""
    return Path(path).suffix.lower() == ".parquet" and Path(path).is_file()


def open_table(path: str, split: str, kind: str, streaming: bool = False) -> Any:
    """One split of a dataset. `kind` names the dataset in messages.

    Raises InputsNotFoundError if it cannot be opened, and ConfigError if there are several splits
    and `split` is none of them.
    """
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
        raise InputsNotFoundError(
            f"the {kind} {path!r} cannot be opened ({' '.join(str(error).split())[:200]}). Give "
            f"--inputs {HUGGING_FACE}NAME with a network connection, or the path of a dataset on "
            "this machine."
        ) from error
    if isinstance(table, dict):
        if len(table) > 1 and split not in table:
            raise ConfigError(
                f"a split of the {kind} {path!r} must be one of {', '.join(table)}; got {split!r}. "
                f"Name one, e.g. --inputs {HUGGING_FACE}{path}@{next(iter(table))}."
            )
        table = table[split] if split else next(iter(table.values()))
    if streaming and is_on_disk(path):
        table = table.to_iterable_dataset()
    return table


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
