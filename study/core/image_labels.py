"""The classes of images from a class list, as numbers of a network's outputs."""

import re
from pathlib import Path

from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.inputs.images import ImageSource


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
