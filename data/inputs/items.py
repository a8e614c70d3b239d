"""Inputs that a Python program holds: tensors, arrays, lists and data sets, as numbered items.

An item is an image, a pair of an image and a class, or a mapping with both (as the `datasets`
library gives them). An image is

- a PIL image, or an array or tensor of bytes: resized and cropped as a file is, or
- a tensor of floats: given to the network as it is.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from ..errors import ConfigError
from .decoding import MODES, decode, upright

IMAGE_KEYS = ("image", "img", "pixel_values", "pixels", "x")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "class", "y")
TARGETS = ("targets", "labels", "_labels")  # attributes of data sets of torchvision
CHANNELS = (1, 3)
IMAGES = "images"

Bytes: TypeAlias = UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]
Floats: TypeAlias = Float32[np.ndarray, "h w 3"]

EXPECTED = (
    "inputs must be a data set, a DataLoader, a tensor [B, 3, H, W], or a list of PIL images, "
    "tensors or texts"
)


@final
@dataclass(frozen=True)
class Item:
    """An image, and its class as the data set gives it. `single` says that it has one channel,
    `fixed` that it is a tensor of floats, which is never resized."""

    pixels: Bytes | Floats
    single: bool
    fixed: bool
    label: Any


@final
@dataclass(frozen=True)
class Items:
    """Numbered items. `called` says what holds them, `classes` names their classes where that is
    known, and `targets` gives their numbers without reading the items, where that is possible.
    Items are read one at a time, since few data sets can be read by several threads."""

    get: Callable[[int], Any]
    count: int
    called: str
    classes: tuple[str, ...] = ()
    targets: Sequence[Any] | None = None
    alone: Any = field(default_factory=threading.Lock)

    def read(self, index: int) -> Item:
        """An item. Raises ConfigError if it is none, and whatever the data set raises."""
        with self.alone:
            image, label = _parts(self.get(index))
            shown = pixels_of(image, f"item {index} of the inputs")
        return Item(*shown, label if self.targets is None else self.targets[index])


def items_of(inputs: Any) -> Items:
    """What a program holds, as numbered items. Raises ConfigError for what cannot be numbered."""
    if isinstance(inputs, Tensor | np.ndarray):
        return _of_array(inputs)
    if isinstance(inputs, DataLoader):
        return _of_loader(inputs)
    if isinstance(inputs, Image.Image):
        raise ConfigError(f"{EXPECTED}; got a single image. Put it into a list.")
    if isinstance(inputs, IterableDataset) or not (
        hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__")
    ):
        streamed = ", whose items have no numbers. Pass list(inputs)."
        raise ConfigError(
            f"{EXPECTED}; got {_kind(inputs)}{streamed if hasattr(inputs, '__iter__') else '.'}"
        )
    if isinstance(inputs, Mapping | str | bytes):
        raise ConfigError(f"{EXPECTED}; got {_kind(inputs)}. Pass its values as a list.")
    count = _not_empty(len(inputs), type(inputs).__name__)
    found = (_called(inputs), _classes(inputs), _targets(inputs, count))
    return Items(inputs.__getitem__, count, *found)


def _of_array(inputs: Tensor | np.ndarray) -> Items:
    if inputs.ndim != 4:
        hint = " Add the first dimension with inputs[None]." if inputs.ndim == 3 else ""
        raise ConfigError(
            f"inputs must be images of shape [B, 3, H, W]; got {_kind(inputs)} of shape "
            f"{list(inputs.shape)}.{hint}"
        )
    return Items(inputs.__getitem__, _not_empty(len(inputs), type(inputs).__name__), IMAGES)


def _of_loader(loader: Any) -> Items:
    """The items of a loader's data set, each through its `collate_fn`."""
    data = loader.dataset
    if isinstance(data, IterableDataset):
        raise ConfigError(
            f"{EXPECTED}; got a DataLoader of {_kind(data)}, whose items have no numbers. Pass "
            "list(loader.dataset)."
        )
    if not isinstance(loader.sampler, SequentialSampler):
        raise ConfigError(
            f"a DataLoader must read its data set in order, so that rows can be computed again; "
            f"got one with {type(loader.sampler).__name__}. Make it with shuffle=False, or pass "
            "its data set."
        )
    plain = loader.collate_fn is default_collate or loader.collate_fn is None
    items = items_of(data)

    def get(index: int) -> Any:
        batch = loader.collate_fn([data[index]])
        if isinstance(batch, list) and isinstance(batch[0], Mapping | tuple | list | Image.Image):
            return batch[0]  # items in a list, as they are
        if isinstance(batch, Mapping):
            return {key: value[0] for key, value in batch.items()}
        return [part[0] for part in batch] if isinstance(batch, list | tuple) else batch[0]

    return items if plain else Items(get, items.count, items.called, items.classes, items.targets)


def _called(data: Any) -> str:
    """What a data set is called: its class, unless it only holds images or a part of another."""
    if isinstance(data, Subset):
        return _called(data.dataset)
    plain = isinstance(data, list | tuple | TensorDataset) or type(data).__name__ == "Dataset"
    return IMAGES if plain else type(data).__name__


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _not_empty(count: int, called: str) -> int:
    if not count:
        raise ConfigError(f"inputs must hold at least one image; got an empty {called}.")
    return count


def _classes(data: Any) -> tuple[str, ...]:
    """The names of a data set's classes, where it has any."""
    if isinstance(data, Subset):
        return _classes(data.dataset)
    names = getattr(data, "classes", None)
    for key in LABEL_KEYS if names is None else ():
        features = getattr(data, "features", None)
        feature = features.get(key) if isinstance(features, Mapping) else None
        names = getattr(feature, "names", None) if names is None else names
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def _targets(data: Any, count: int) -> Sequence[Any] | None:
    """The classes of all items, where a data set holds them in a list or a tensor."""
    if isinstance(data, Subset):
        whole = _targets(data.dataset, len(data.dataset))  # type: ignore[arg-type]
        return None if whole is None else [whole[i] for i in data.indices]
    if getattr(data, "target_transform", None) is not None:
        return None
    for name in TARGETS:
        found = getattr(data, name, None)
        if isinstance(found, list | Tensor | np.ndarray) and len(found) == count:
            return found if isinstance(found, list) else found.tolist()
    return None


def _parts(item: Any) -> tuple[Any, Any]:
    """The image and the class of an item."""
    if isinstance(item, Mapping):
        image = next((item[key] for key in IMAGE_KEYS if key in item), None)
        if image is None:
            raise ConfigError(
                f"items of the inputs must have one of the keys {', '.join(IMAGE_KEYS)}; got "
                f"{', '.join(map(str, item))}. Give a list of the images."
            )
        return image, next((item[key] for key in LABEL_KEYS if key in item), None)
    if isinstance(item, list | tuple) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def pixels_of(image: Any, what: str) -> tuple[Bytes | Floats, bool, bool]:
    """The pixels of an image, bytes [H, W, 3] or [H, W], or floats [H, W, 3]; whether it has a
    single channel; and whether it is a tensor of floats.

    Floats that are bytes over 255, as those of `ToTensor`, become bytes: they are the same numbers,
    and a picture. Raises ConfigError for other things than images, ValueError for NaN.
    """
    if isinstance(image, Image.Image):
        if image.mode.startswith(MODES) and not image.mode.startswith("I;16"):
            raise ConfigError(
                f"{what} must be a PIL image of mode RGB or L; got mode {image.mode}, which does "
                "not say how bright white is. Convert it, e.g. with image.convert('RGB')."
            )
        return _of_pil(image), image.mode in ("1", "L"), False
    is_array = isinstance(image, np.ndarray)
    if is_array and image.dtype == np.uint8 and image.shape[-1:] in ((3,), (4,)):
        return upright(Image.fromarray(image), 255.0)[0], False, False
    if not is_array and not isinstance(image, Tensor):
        raise ConfigError(f"{what} must be a PIL image, an array or a tensor; got {_kind(image)}.")
    if is_array and image.ndim == 3 and image.shape[0] not in CHANNELS:
        image = np.moveaxis(image, -1, 0)
    tensor = torch.as_tensor(image).detach().cpu()
    tensor = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    tensor = tensor[None] if tensor.ndim == 2 else tensor
    if tensor.ndim != 3 or len(tensor) not in CHANNELS or not tensor.numel():
        raise ConfigError(
            f"{what} must be an image of shape [3, H, W] or [1, H, W]; got {list(image.shape)}."
        )
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ConfigError(
            f"{what} must hold floats, or bytes (uint8); got {str(tensor.dtype)[6:]}. Convert it."
        )
    single, values_HWC = len(tensor) == 1, tensor.permute(1, 2, 0).contiguous()
    if tensor.dtype == torch.uint8:
        return _grey_or_rgb(values_HWC.numpy()), single, False
    floats_HWC = values_HWC.float().numpy()
    bytes_HWC = as_bytes(floats_HWC)
    if bytes_HWC is not None:
        return _grey_or_rgb(bytes_HWC), single, True
    if not np.isfinite(floats_HWC).all():
        raise ValueError("a pixel is NaN or infinite")
    return np.repeat(floats_HWC, 3, axis=2) if single else floats_HWC, single, True


def _of_pil(image: Image.Image) -> Bytes:
    """The pixels of a PIL image. One that waits in its file is read from there as every file is,
    and goes on waiting: a list of many would not fit into memory."""
    name = getattr(image, "filename", "")
    if name and getattr(image, "fp", None) is not None and image.tell() == 0:
        return decode(Path(os.fsdecode(name)).read_bytes())
    return upright(image, 65535.0)[0]


def as_bytes(floats: Float32[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."] | None:
    """The bytes that give these floats when divided by 255; None if there are none."""
    if not (floats.min() >= 0 and floats.max() <= 1):
        return None
    rounded = np.rint(floats * np.float32(255)).astype(np.uint8)
    return rounded if np.array_equal(rounded / np.float32(255), floats) else None


def _grey_or_rgb(bytes_HWC: UInt8[np.ndarray, "h w c"]) -> Bytes:
    return bytes_HWC[:, :, 0] if bytes_HWC.shape[2] == 1 else bytes_HWC
