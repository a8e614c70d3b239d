"""What `tendril.harvest` does: harvest by a config, or what a Python program holds."""

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from tendril.data.errors import ConfigError
from tendril.data.home import home_folder
from tendril.data.inputs import memory
from tendril.data.inputs.items import Items, items_of
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.memory import remember
from tendril.models.subjects.subject import Subject

from .config import HarvestConfig, LanguageConfig, StoreConfig
from .run import Harvest
from .run import harvest as run

Tensor = torch.Tensor
Config = TypeVar("Config", bound=StoreConfig)
GIVEN = ("preprocess", "input_size", "layout", "prefix_tokens", "patch_size")


def harvest(
    config: Any = None,
    /,
    *,
    module: Any = None,
    inputs: Any = None,
    sites: str | Iterable[str] = (),
    preprocess: Callable[[Tensor], Tensor] | None = None,
    input_size: int | None = None,
    layout: Mapping[str, str] | None = None,
    prefix_tokens: Sequence[str] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    labels: Sequence[Any] | None = None,
    save_images: bool = False,
    **settings: Any,
) -> Harvest:
    """Harvest activations into a store, or find the store complete already.

        tendril.harvest(tendril.HarvestConfig(inputs="photos", weights="lucent"))
        tendril.harvest(module=network, inputs=data, sites=["layer2"], per_input=10)

    module: a torch module, or the Subject that `subject_from_module` returns. It is copied, put in
        eval mode and read in float32; every dotted name of its modules is a site. `subject` names
        one of the command's subjects instead.
    inputs: a torch Dataset, a DataLoader that does not shuffle, a tensor [B, 3, H, W], a list of
        PIL images or tensors, a `datasets` Dataset, or what `--inputs` takes. PIL images and bytes
        (uint8) are resized and cropped as files are; floats are given to the network as they are.
        Items must be the same each time they are read. A list of texts is for a language model
        that `subject` names.
    sites: the sites to record; without them the error lists a few.
    preprocess: turns RGB in 0..1 of shape [B, 3, H, W] into the input of the module. With it,
        floats must be RGB in 0..1.
    input_size: the side of the images that the module takes; by default that of the first image if
        it is a square tensor, or of at most 224 pixels, else 224.
    layout, prefix_tokens, patch_size: as for `subject_from_module`.
    labels: the class of each input, by number or by name; by default what the items of a data set
        hold beside the image.
    save_images: also write the images, as the network is shown them, into a folder below
        `home`/images, where studies of another process find them.
    settings: fields of HarvestConfig (or LanguageConfig for texts): per_input, positions, limit,
        device, home, name ...

    The store is identified by the weights and the structure of the module, what `preprocess` does,
    and the images as the network is shown them. All images are read for that. With a `name`, which
    then is part of the identity, only 64 of them are. Raises subclasses of TendrilError.
    """
    settings |= {"sites": (sites,) if isinstance(sites, str) else tuple(sites)} if sites else {}
    given = {
        "preprocess": preprocess,
        "input_size": input_size,
        "layout": layout,
        "prefix_tokens": prefix_tokens,
        "patch_size": patch_size,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if module is None and given:
        raise ConfigError(f"{', '.join(given)} must come with a module; got none. Pass module=...")
    if config is not None:
        _check_config(config, module, labels)
        settings |= {"inputs": os.fspath(inputs)} if inputs is not None else {}
        return run(with_settings(config, settings))
    if inputs is None:
        raise ConfigError("inputs must be given; got none. Pass a data set, images or a folder.")
    if _are_texts(inputs) or isinstance(settings.get("context"), int):
        return _of_texts(inputs, module, settings)
    folder = home_folder(settings.get("home")) / "images" if save_images else None
    return _of_images(inputs, module, given, labels, folder, settings)


def _of_images(
    inputs: Any,
    module: Any,
    given: dict[str, Any],
    labels: Any,
    folder: Path | None,
    settings: dict[str, Any],
) -> Harvest:
    settings = dict(settings)
    named = isinstance(inputs, str | os.PathLike)
    if named and (labels is not None or folder):
        raise ConfigError(
            "labels and save_images are for images that the program holds; got the name of a "
            "folder or file. Leave them out."
        )
    items = None if named else items_of(inputs)
    subject = _subject(module, items, given, settings)
    if items is None:
        settings["inputs"] = os.fspath(inputs)
    else:
        settings["inputs"] = memory.remember(
            items,
            subject.input_size,
            limit=settings.get("limit"),
            unit="preprocess" in given or isinstance(module, Subject) or module is None,
            name=str(settings.get("name", "")),
            labels=labels,
            folder=folder,
        )
        settings.setdefault("name", f"{subject.name}-{items.called}")
    config = with_settings(HarvestConfig(subject=""), settings)
    if items is not None and config.rotations:
        _check_pictures(config.inputs, subject.input_size)
    return run(config)


def _subject(
    module: Any, items: Items | None, given: dict[str, Any], settings: dict[str, Any]
) -> Subject:
    """The network, whose name becomes a setting."""
    if module is None:
        known = {k: settings[k] for k in ("weights", "normalisation") if k in settings}
        return load_subject(str(settings.get("subject", "")), **known)
    if "subject" in settings:
        raise ConfigError("subject must be left out if there is a module. Leave one of them out.")
    channels = 3
    if items is not None and not isinstance(module, Subject):
        first = memory.first_item(items)
        given = {"input_size": memory.size_of(first)} | given
        channels = 1 if first and first.single else 3
    if isinstance(module, Subject):
        given = {k: v for k, v in given.items() if (k, v) != ("input_size", module.input_size)}
    settings["subject"], subject = remember(module, channels=channels, **given)
    return subject


def _of_texts(inputs: Any, module: Any, settings: dict[str, Any]) -> Harvest:
    if module is not None or "subject" not in settings:
        raise ConfigError(
            "texts must come with subject=..., the folder or the name of a language model; got "
            f"{'a module' if module is not None else 'none'}."
        )
    if not isinstance(inputs, str | os.PathLike):
        inputs = memory.remember_texts(inputs)
        model = str(settings["subject"]).removeprefix("package:")
        settings = {"name": f"{Path(model).name}-texts", **settings}
    return run(with_settings(LanguageConfig(inputs=os.fspath(inputs)), settings))


def _are_texts(inputs: Any) -> bool:
    return isinstance(inputs, list | tuple) and bool(inputs) and isinstance(inputs[0], str)


def _check_config(config: object, module: Any, labels: Any) -> None:
    if not isinstance(config, StoreConfig):
        raise ConfigError(
            f"the first argument must be a HarvestConfig or a LanguageConfig; got a "
            f"{type(config).__name__}. Name the others: harvest(module=..., inputs=..., sites=...)."
        )
    if module is not None or labels is not None:
        raise ConfigError(
            "module and labels must be left out for a config, which names its subject. Pass its "
            "fields instead: harvest(module=..., inputs=..., per_input=10)."
        )


def _check_pictures(inputs: str, size: int) -> None:
    """Raise ConfigError for floats that are no picture, of which no patch can be turned."""
    from tendril.data.inputs.images import open_images

    source = open_images(inputs)
    if source.exact and source.exact(0) is not None:
        raise ConfigError(
            "rotations need images of 8 bits; the inputs hold other floats. Give PIL images, or "
            "tensors of bytes."
        )


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """A config with some fields replaced. Raises ConfigError for names that it does not have."""
    names = [field.name for field in dataclasses.fields(config)]
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, (*names, *GIVEN, "module", "labels"), n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(names)}."
            raise ConfigError(f"{name} must be a setting of {type(config).__name__}. {hint}")
    return dataclasses.replace(config, **settings)
