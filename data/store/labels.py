"""Classes of inputs. They lie beside the spec of a store, and are no part of its identity."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int32

from ..errors import ConfigError

FILE = "labels/zarr.json"
NO_CLASS = -1


@final
@dataclass(frozen=True)
class Labels:
    """The class of each input: `number_B` are numbers of `names`, or NO_CLASS."""

    names: tuple[str, ...]
    number_B: Int32[np.ndarray, " b"]

    def __len__(self) -> int:
        return len(self.number_B)

    def are(self, classes: Sequence[str], flag: str) -> Bool[np.ndarray, " b"]:
        """Which inputs are of the classes given by name or number. Raises ConfigError, which names
        the flag, for other classes."""
        return np.isin(self.number_B, [self._number(one, flag) for one in classes])

    def _number(self, given: str, flag: str) -> int:
        if given in self.names:
            return self.names.index(given)
        if given.isdecimal() and int(given) < len(self.names):
            return int(given)
        some = ", ".join(self.names[:10])
        raise ConfigError(
            f"{flag} must be classes of the images, by name or number; got {given!r}. The classes "
            f"are {some}{' ...' if len(self.names) > 10 else ''}."
        )

    def attributes(self) -> dict[str, Any]:
        """The attributes of the group `labels` of a store, as FORMAT.md describes them."""
        numbers = self.number_B.astype("<i4").tobytes()
        return {"names": list(self.names), "numbers": base64.b64encode(numbers).decode()}


def labels_of(attributes: Mapping[str, Any], inputs: int) -> Labels:
    """The labels that `Labels.attributes` describes. Raises ValueError unless they are those of
    `inputs` inputs."""
    try:
        names = tuple(str(name) for name in attributes["names"])
        numbers = np.frombuffer(base64.b64decode(attributes["numbers"]), "<i4").astype(np.int32)
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if len(numbers) != inputs:
        raise ValueError(f"{len(numbers)} numbers for {inputs} inputs")
    if len(numbers) and not (numbers.min() >= NO_CLASS and numbers.max() < len(names)):
        raise ValueError(f"numbers from {numbers.min()} to {numbers.max()} of {len(names)} names")
    return Labels(names, numbers)


def folder_labels(paths: Sequence[str], known: Sequence[str] = ()) -> Labels | None:
    """The classes of files by the folder that each lies in; None if there are fewer than two.

    A file that lies in no subfolder has no class. `known` are the paths whose folders are
    numbered, by default `paths`; so a sample of a folder has the numbers of the whole. Names of
    files are no classes, even where they begin with an id.
    """
    names = sorted({name for path in known or paths if (name := PurePosixPath(path).parent.name)})
    if len(names) < 2:
        return None
    number = {name: i for i, name in enumerate(names)}
    found = [number.get(PurePosixPath(path).parent.name, NO_CLASS) for path in paths]
    return Labels(tuple(names), np.array(found, np.int32))
