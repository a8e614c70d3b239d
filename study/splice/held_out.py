"""The images that splicing is judged on: those that no run was trained on, where that is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from tendril.data import order
from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.inputs.images import DEAD_LEAVES, ImageSource, open_images
from tendril.data.store.provenance import located
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.dictionaries.checkpoint import read_config

from ..core.image_batches import harvested_images, some_images
from ..core.vision_inputs import VisionInputs
from .config import SpliceConfig

FEW = 20
"""Images below which figures are uncertain enough to be warned of."""
HELD_OUT = "held out of the training of every run"
OTHERS = "no run was trained on images from there, or of these names"
UNKNOWN = "whether a run was trained on them is not known, because a store is gone"


@final
@dataclass(frozen=True)
class JudgedImages:
    """Images, where they are from (`source`), and what is known of their part in training
    (`part`), both in words."""

    images: ImageSource
    source: str
    part: str


def judged_images(config: SpliceConfig, runs: Sequence[VisionInputs]) -> JudgedImages:
    """The images asked for, or those of the store, without any that a run was trained on.

    Raises ConfigError where no image remains or the store is gone and no --inputs are given,
    InputsNotFoundError where the images are no longer those that were harvested, and what
    `open_images` raises.
    """
    stores = [one.store for one in runs]
    if config.inputs:
        related = [store for store in stores if store and _comes_from(store, config.inputs)]
        if not related:
            return _others(config, runs)
        images, place = _all_of(config), Path(config.inputs).name
    else:
        store = stores[0]
        if store is None:
            raise ConfigError("splice needs images, and the run's store is gone; pass --inputs.")
        images, place = harvested_images(store), f"that {store.name} was harvested from"
    trained = _trained_on(runs)
    keys = [_key(images.origin, name) for name in images.names]
    chosen = np.array([i for i, key in enumerate(keys) if key not in trained], np.int64)
    if not len(chosen):
        raise ConfigError(
            f"none of the {len(images):,} images {'of ' if config.inputs else ''}{place} is held "
            "out of the training of every run. Pass --inputs with other images, or harvest more "
            "of them."
        )
    if config.limit is not None and config.limit < len(chosen):
        chosen = chosen[order.sample(len(chosen), config.limit, 0)]
    if len(chosen) < FEW:
        note(
            f"warning: the images judged are only {len(chosen)}, so the figures are uncertain. "
            "Pass --inputs with more images that no run was trained on, or harvest more."
        )
    source = f"{len(chosen):,} of {len(images):,} images {'of ' if config.inputs else ''}{place}"
    some = f"{HELD_OUT} whose store is there; for others {UNKNOWN}"
    part = some if None in stores else HELD_OUT
    return JudgedImages(some_images(images, chosen.tolist(), HELD_OUT), source, part)


def _others(config: SpliceConfig, runs: Sequence[VisionInputs]) -> JudgedImages:
    """Images from another place than any store's; those named as training images are told of."""
    images = open_images(config.inputs, config.limit)
    source = f"{_count(images, config.limit)} of {Path(config.inputs).name}"
    if any(one.store is None for one in runs):
        return JudgedImages(images, source, UNKNOWN)
    trained = _trained_on(runs, names=True)
    same = sum(name in trained for name in images.names)
    if not same:
        return JudgedImages(images, source, OTHERS)
    part = (
        f"{same:,} of {len(images):,} have the name of an image that a run was trained on, and may "
        "be that image"
    )
    note(f"warning: of the images in {config.inputs} {part}. Pass --inputs with others.")
    return JudgedImages(images, source, part)


def _all_of(config: SpliceConfig) -> ImageSource:
    generated = config.inputs.split(":")[0] == DEAD_LEAVES  # any number of them
    return open_images(config.inputs, config.limit if generated else None)


def _comes_from(store: Store, inputs: str) -> bool:
    """True if `inputs` may hold the files or rows that a store's images were."""
    place = located(store.path, store.origin.get("inputs", ""))
    if _is_path(place) and _is_path(inputs):
        there, here = Path(place).resolve(), Path(inputs).resolve()
        return there.is_relative_to(here) or here.is_relative_to(there)
    return place.split("@")[0] == inputs.split("@")[0]


def _is_path(inputs: str) -> bool:
    return bool(inputs) and inputs.split(":")[0] not in ("hf", DEAD_LEAVES)


def _key(place: str, name: str) -> str:
    """What stands for an image: its path, or its name where it lies in no folder."""
    return str(Path(place).resolve() / name) if _is_path(place) else name


def _trained_on(runs: Sequence[VisionInputs], *, names: bool = False) -> set[str]:
    """The keys, or the names, of the images that some run was trained on, by the stores that are
    there."""
    found: set[str] = set()
    for one in runs:
        if one.store is not None and one.run is not None:
            place = located(one.store.path, one.store.origin.get("inputs", ""))
            count = int(one.store.spec["inputs"]["count"])
            aside = order.held_out(np.arange(count), held_out_of(read_config(one.run)))
            trained = [one.store.input_name(i) for i in np.flatnonzero(~aside).tolist()]
            found.update(trained if names else (_key(place, name) for name in trained))
    return found


def held_out_of(trained: Mapping[str, Any]) -> float:
    """The fraction of the inputs that was held out of a run's training."""
    return float(trained.get("held_out", BATCH_DEFAULTS["held_out"]))


def _count(images: ImageSource, limit: int | None) -> str:
    if limit is None:
        return f"all {len(images):,} images"
    return f"a random sample of {len(images):,} images"
