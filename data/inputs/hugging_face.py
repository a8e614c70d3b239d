"""Datasets of the `datasets` library, from the Hugging Face hub or from this machine."""

from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputsNotFoundError

HUGGING_FACE = "hf:"
ON_DISK = ("dataset_info.json", "dataset_dict.json")  # files written by `save_to_disk`


def is_on_disk(path: str | Path) -> bool:
    """True if a folder is a dataset written by `save_to_disk`."""
    return any((Path(path) / name).is_file() for name in ON_DISK)


def open_table(path: str, split: str, kind: str, streaming: bool = False) -> Any:
    """One split of a dataset. `kind` names the dataset in messages.

    Raises InputsNotFoundError if it cannot be opened, and ConfigError if there are several splits
    and `split` is none of them.
    """
    import datasets  # takes a second to import

    try:
        if is_on_disk(path):
            table = datasets.load_from_disk(path)
        else:
            table = datasets.load_dataset(path, split=split or None, streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:
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
