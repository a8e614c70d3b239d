"""What the study of attacks reads: networks, and images with their classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tendril.data import order
from tendril.data.errors import ConfigError
from tendril.data.home import network_place
from tendril.data.inputs.images import ImageSource, open_images, readable
from tendril.data.store.labels import NO_CLASS
from tendril.models.dictionaries.checkpoint import CONFIG, read_json
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import Subject

from ..core.image_labels import INPUTS, image_labels
from .config import AttackConfig

SAMPLE = 0xA77AC  # the key of the images that are drawn


@final
@dataclass(frozen=True)
class AttackInputs:
    """Networks and images. `class_N` are numbers of the network's outputs, or -1 for none."""

    subject: Subject
    others: Mapping[str, Subject]
    source: ImageSource
    class_N: Int[np.ndarray, " n"]

    def load(self, count: int) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, " b"]]:
        """RGB images in 0..1 and their classes, `count` of those that have a class.

        Raises ConfigError for inputs that are no images of 8 bits: their scale is not known.
        """
        known = np.flatnonzero(self.class_N != NO_CLASS)
        chosen = known[order.sample(len(known), count, SAMPLE)]
        pictures, classes = [], []
        for index in chosen.tolist():
            if self.source.exact and self.source.exact(index) is not None:
                raise ConfigError(
                    "an attack needs images of 8 bits, whose pixels are 0..1; the inputs hold "
                    "other floats. Give pictures, or tensors of bytes."
                )
            picture = readable(self.source, index, self.subject.input_size)
            if picture is not None:
                pictures.append(torch.from_numpy(picture))
                classes.append(int(self.class_N[index]))
        if not pictures:
            raise ConfigError(f"{self.source.origin} has no readable image with a class.")
        x_BCHW = torch.stack(pictures).permute(0, 3, 1, 2).float() / 255
        return x_BCHW, torch.tensor(classes)


def find_inputs(config: AttackConfig) -> AttackInputs:
    """Find networks and images, and check that they belong together.

    Raises ConfigError for images without classes, with other classes than the network was trained
    on, and for other networks of another input size; and what `load_subject` and `open_images`
    raise.
    """
    place = network_place(config.subject, config.home)
    subject = load_subject(
        place, weights=config.weights, normalisation=config.normalisation or "auto"
    )
    source = open_images(config.inputs)
    others = {}
    for name in config.others:
        other = load_subject(network_place(name, config.home))
        if other.input_size != subject.input_size:
            raise ConfigError(
                f"--others must take images of {subject.input_size} pixels as {subject.name} does; "
                f"{name} takes {other.input_size}. Leave it out."
            )
        others[name] = other
    classes = _classes(config, source)
    _check_names(config, place, source)
    return AttackInputs(subject, others, source, classes)


def _classes(config: AttackConfig, source: ImageSource) -> Int[np.ndarray, " n"]:
    if config.labels not in ("", INPUTS):
        return np.array(image_labels(Path(config.labels), source))
    if source.labels is None:
        raise ConfigError(
            f"an attack needs the class of each image, and {config.inputs} has none. Give a data "
            "set with a column `label`, a folder with a subfolder for each class, or --labels FILE "
            "with a class a line."
        )
    return source.labels.number_B.astype(np.int64)


def _check_names(config: AttackConfig, place: str, source: ImageSource) -> None:
    """Raise ConfigError if a network was trained here on classes of other names."""
    if config.labels not in ("", INPUTS) or not (Path(place) / CONFIG).is_file():
        return
    trained: list[Any] = read_json(Path(place) / CONFIG).get("class_names", [])
    names = list(source.labels.names) if source.labels else []
    if trained and names != trained:
        raise ConfigError(
            f"the classes of {config.inputs} must be those that {Path(place).name} was trained "
            f"on, {', '.join(map(str, trained[:4]))} ... ({len(trained)}); got "
            f"{', '.join(names[:4])} ... ({len(names)}). Give images of the same data set."
        )
