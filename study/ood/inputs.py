"""What is scored: images inside and outside, and the runs' network and dictionaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from tendril.data import order
from tendril.data.cli import note
from tendril.data.errors import ConfigError, InputsNotFoundError
from tendril.data.inputs.images import DEAD_LEAVES, ImageSource, open_images
from tendril.data.store.provenance import same_identity
from tendril.data.store.reader import BATCH_DEFAULTS
from tendril.models.dictionaries.checkpoint import read_config
from tendril.models.subjects.subject import Subject

from ..core.image_batches import harvested_images, some_images
from ..core.stores import common_site, dictionary_digests, training_warnings
from ..core.vision_inputs import VisionInputs, are_harvested, find_vision_inputs
from .config import NOISE, OodConfig

FEW = 5
"""Images a class below which a profile is uncertain enough to be warned of."""


@final
@dataclass(frozen=True)
class OodInputs:
    """Runs of one site, and images: those to fit on, those inside, and sets outside by name."""

    runs: tuple[Path, ...]
    found: VisionInputs
    fit: ImageSource
    inside: ImageSource
    outside: dict[str, ImageSource]

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.found.subject

    @property
    def site(self) -> str:
        """The site whose vectors the dictionaries take."""
        return self.found.site

    def identity(self) -> dict[str, Any]:
        """What determines findings besides the settings."""
        sets = {"fit": self.fit, "inside": self.inside, **self.outside}
        return {
            "subject": dict(self.subject.identity),
            "site": self.site,
            "dictionaries": dictionary_digests(self.runs),
            "images": {name: [one.identity, len(one)] for name, one in sets.items()},
        }

    def remarks(self) -> list[str]:
        """What training has warned of."""
        return training_warnings(self.runs)


def find_ood_inputs(config: OodConfig, runs: Sequence[Path]) -> OodInputs:
    """Find network, site, store and images of the runs, and check that they belong together.

    Raises ConfigError where sites, subjects or stores differ, or a set of images is empty or given
    twice, and what `find_vision_inputs` and `open_images` raise.
    """
    common_site(runs)
    found = [find_vision_inputs(config, str(run), images=False) for run in runs]
    first = found[0]
    if not all(same_identity(first.subject.identity, one.subject.identity) for one in found):
        raise ConfigError("the runs must be of one subject; got several. Study each by itself.")
    if first.store is None:
        raise ConfigError(
            "study ood fits profiles to the images that a run was trained on, and the run's store "
            "is gone. Pass --store with its path, or harvest it again."
        )
    if len({one.store.name if one.store else "" for one in found}) > 1:
        raise ConfigError("the runs must be trained on one store; got several. Study each alone.")
    images = _harvested(config, first)
    aside = np.zeros(len(images), bool)
    for run in runs:
        fraction = float(read_config(run).get("held_out", BATCH_DEFAULTS["held_out"]))
        aside |= order.held_out(np.arange(len(images)), fraction)
    near = _of_classes(images, config.left_out)
    fit = _drawn(images, np.flatnonzero(~aside & ~near), config.fit_images, "trained on")
    outside = {_name(one): _outside(one, config.limit) for one in config.outside}
    if len(outside) < len(config.outside):
        raise ConfigError("--outside must name different sets; two have the same name.")
    if config.left_out:
        part = f"left-out classes {', '.join(config.left_out)}"
        outside["left-out classes"] = _drawn(images, np.flatnonzero(near), config.limit, part)
    if config.inside:
        inside = _opened(config.inside, "--inside")
        kept = np.flatnonzero(~_of_classes(inside, config.left_out))
        inside = _drawn(inside, kept, config.limit, "inside")
    else:
        inside = _drawn(images, np.flatnonzero(aside & ~near), config.limit, "held out")
    return OodInputs(tuple(runs), first, fit, inside, outside)


def _harvested(config: OodConfig, found: VisionInputs) -> ImageSource:
    assert found.store is not None
    if not config.inputs:
        return harvested_images(found.store)
    images = open_images(config.inputs, int(found.store.spec["inputs"]["count"]))
    if not are_harvested(images, found.store.spec["inputs"]):
        raise InputsNotFoundError(
            f"--inputs must be the images that {found.store.name} was harvested from; "
            f"{config.inputs} holds others. Leave --inputs out if they are where they were."
        )
    return images


def _of_classes(images: ImageSource, classes: Sequence[str]) -> np.ndarray:
    """Which images are of the classes given by name or number. Raises ConfigError for others."""
    if not classes:
        return np.zeros(len(images), bool)
    labels = images.labels
    if labels is None:
        raise ConfigError(
            f"--left-out needs images whose classes are known, from folders or a column of labels; "
            f"{images.origin} has none. Leave --left-out out."
        )
    return labels.are(classes, "--left-out")


def _name(inputs: str) -> str:
    """A set's name on the page: the last part of its path."""
    return Path(inputs.removeprefix("hf:").removesuffix(".parquet")).name or inputs


def _outside(inputs: str, limit: int) -> ImageSource:
    """A set outside. Generated ones have `limit` images."""
    if inputs.split(":")[0] == NOISE:
        return noise(inputs, limit)
    if inputs.split(":")[0] == DEAD_LEAVES:
        return open_images(inputs, limit)
    images = _opened(inputs, "--outside")
    return _drawn(images, np.arange(len(images)), limit, "outside")


def _opened(inputs: str, flag: str) -> ImageSource:
    """`open_images`, whose messages speak of --inputs."""
    try:
        return open_images(inputs)
    except InputsNotFoundError as error:
        raise InputsNotFoundError(str(error).replace("--inputs", flag)) from error


def noise(inputs: str, count: int) -> ImageSource:
    """Images whose pixels are drawn uniformly and independently, from `noise` or `noise:SEED`."""
    _, _, given = inputs.partition(":")
    if given and not given.isdecimal():
        raise ConfigError(f"noise must be noise or noise:SEED, a whole number; got {inputs!r}.")
    seed = int(given or 0)

    def fetch(index: int, size: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index))))
        return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)

    names = tuple(f"noise-{seed}-{i}" for i in range(count))
    return ImageSource({"kind": NOISE, "seed": seed, "count": count}, inputs, names, fetch)


def _drawn(images: ImageSource, numbers: np.ndarray, limit: int, part: str) -> ImageSource:
    """At most `limit` of some images, the same ones each time. Raises ConfigError for none."""
    if not len(numbers):
        raise ConfigError(
            f"no image of {images.origin} is {part}. Harvest more images, or give others with "
            "--inside or --outside."
        )
    if limit < len(numbers):
        numbers = numbers[order.sample(len(numbers), limit, 0)]
    return some_images(images, [int(i) for i in numbers], part)


def warn_of_few(images: int, classes: int) -> str:
    """A remark where classes have few images; empty where they have enough."""
    if images >= FEW * classes:
        return ""
    text = (
        f"{images:,} images of {classes:,} answered classes were fitted, fewer than {FEW} a class; "
        "profiles and class means of so few images are mostly noise"
    )
    note(f"warning: {text}. Harvest more images.")
    return f"{text}."
