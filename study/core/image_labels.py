"""The classes of images from a class list, as numbers of a network's outputs."""

import re
from pathlib import Path

from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.inputs.images import ImageSource

INPUTS = "inputs"
"""What --labels names where the inputs themselves have classes."""


def labels_of(labels: str, images: ImageSource) -> list[int] | None:
    """The classes of images from what --labels names: nothing, `inputs` or a class list.

    Raises ConfigError for inputs without classes, and what `image_labels` raises.
    """
    if not labels:
        return None
    if labels != INPUTS:
        return image_labels(Path(labels), images)
    own = images.labels
    if own is None or bool((own.number_B < 0).any()):
        raise ConfigError(
            f"--labels inputs needs inputs that all have a class, in a column of labels or by the "
            f"folders they lie in; those of {images.origin} have none. Pass a class list, or leave "
            "--labels out."
        )
    return [int(number) for number in own.number_B]


def image_labels(path: Path, images: ImageSource) -> list[int]:
    """The class of each image, as the number of a line of the file `path`.

    A line begins with the id of its class. An image's class is the id that begins its name, or
    else the name of a folder above it. Raises InputsNotFoundError where there is no such file, and
    ConfigError for an image without a class.
    """
    if not path.is_file():
        raise InputsNotFoundError(
            f"--labels must be a file with a class a line; {path} is no file. Check the path."
        )
    classes: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines()):
        classes.setdefault((line.split() or [""])[0], number)
    labels = []
    for index in range(len(images)):
        parts = reversed(Path(images.name(index)).parts)
        ids = [re.split(r"[_.\s]", part)[0] for part in parts]
        found = next((classes[name] for name in ids if name in classes), None)
        if found is None:
            raise ConfigError(
                f"no line of {path} begins with the id of image {images.name(index)!r} "
                f"(looked for {' and '.join(repr(name) for name in ids)}). Pass the class list of "
                "these images, or leave --labels out."
            )
        labels.append(found)
    return labels
