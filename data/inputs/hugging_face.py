"""Tables of the `datasets` library: from the hub, or from this machine."""

from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputsNotFoundError

HUGGING_FACE = "hf:"
ON_DISK = ("dataset_info.json", "dataset_dict.json")  # what `save_to_disk` leaves behind


def is_on_disk(path: str | Path) -> bool:
    """Whether a folder is a set that `datasets` has saved."""
    return any((Path(path) / name).is_file() for name in ON_DISK)


def open_table(path: str, split: str, kind: str, streaming: bool = False) -> Any:
    """One split of a set; `kind` says in errors what is looked for. Raises InputsNotFoundError,
    and ConfigError where there are several splits and none of them is named."""
    import datasets  # takes a second to import, and few harvests need it

    try:
        if is_on_disk(path):
            table = datasets.load_from_disk(path)
        else:
            table = datasets.load_dataset(path, split=split or None, streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputsNotFoundError(
            f"the {kind} {path!r} cannot be opened ({' '.join(str(error).split())[:200]}); give "
            f"--inputs {HUGGING_FACE}NAME with a network, or the path of a set on this machine."
        ) from error
    if isinstance(table, dict):
        if len(table) > 1 and split not in table:
            raise ConfigError(
                f"the {kind} {path!r} has the splits {', '.join(table)}; name one of them: "
                f"--inputs {HUGGING_FACE}{path}@{next(iter(table))}."
            )
        table = table[split] if split else next(iter(table.values()))
    if streaming and is_on_disk(path):
        table = table.to_iterable_dataset()
    return table
