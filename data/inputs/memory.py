"""Inputs that a Python program holds, under a name that `open_images` takes: `memory:NAME-DIGEST`.

The name stands for the inputs in configs, stores and studies while the program runs. The identity
of such inputs is what the network is shown, so that the same images in a folder have it, too.
"""

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from ..cli import note, progress_bar
from ..errors import ConfigError, InputsNotFoundError, TendrilError, UnreadableInputError
from ..store.atomic import write_whole
from ..store.labels import NO_CLASS, Labels
from ..store.spec import slug
from .decoding import squared
from .images import FIT, MEMORY, REMEMBERED, ImageSource, chosen_of
from .items import Item, Items, items_of
from .texts import HELD, TextSource

KEPT = 8  # inputs that are remembered; the oldest is forgotten
CACHE_BYTES = 2**28  # of images as shown, so that small sets are read once
TWICE = 4  # items that are read twice, to see whether they stay the same
SAMPLED = 64  # items that enter the fingerprint of inputs with a name of their own
USUAL = 224  # pixels

Shown: TypeAlias = UInt8[np.ndarray, "size size 3"] | Float32[np.ndarray, "size size 3"]


@final
class Memory:
    """Inputs that a program holds, as a network of `size` pixels is shown them.

    `unit` says that the numbers of tensors must be RGB in 0..1. With a `name`, which is then a
    part of the identity, only some items enter the fingerprint. `folder` is where `save` writes.
    """

    def __init__(
        self,
        items: Items,
        size: int,
        *,
        unit: bool,
        name: str = "",
        labels: Any = None,
        folder: Path | None = None,
    ) -> None:
        self.items, self.size, self.unit, self.name = items, size, unit, name
        self._folder = folder
        self._given = None if labels is None else _checked(labels, items.count)
        self._labels: dict[int, Any] = {}
        self._digests: dict[int, str] = {}
        self._cache: dict[int, Shown] = {}
        self._free = CACHE_BYTES

    def shown(self, index: int) -> Shown:
        """Item number `index`, as the network is shown it. Raises InputsNotFoundError where it has
        changed since it was first read."""
        if index in self._cache:
            return self._cache[index]
        shown = self._read(index)
        if self._digests.setdefault(index, digest_of(shown)) != digest_of(shown):
            raise InputsNotFoundError(
                f"inputs must give the same image each time; item {index} has changed since it was "
                "first read. Take random transforms out of the data set, or pass the inputs again."
            )
        if shown.nbytes <= self._free:
            self._free -= shown.nbytes
            self._cache[index] = shown
        return shown

    def _read(self, index: int) -> Shown:
        item = self.items.read(index)
        self._labels[index] = item.label
        return self._fitted(item, index)

    def _fitted(self, item: Item, index: int) -> Shown:
        pixels, size = item.pixels, self.size
        if item.fixed and pixels.shape[:2] != (size, size):
            raise ConfigError(
                f"tensors of floats must have {size} x {size} pixels; item {index} of the inputs "
                f"has {pixels.shape[0]} x {pixels.shape[1]}. Resize them, set input_size, or give "
                "PIL images, which are resized and cropped."
            )
        if pixels.dtype == np.uint8:
            return squared(pixels, size)
        if self.unit and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ConfigError(
                f"with a preprocess tensors must be RGB in 0..1; item {index} of the inputs has "
                f"values from {pixels.min():.3g} to {pixels.max():.3g}. If they are preprocessed "
                "already, leave preprocess out."
            )
        return np.ascontiguousarray(pixels)

    def source(self, limit: int | None = None) -> ImageSource:
        """The numbered images, of which `limit` draws some. Reads them for their fingerprint."""
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be at least 1 image; got {limit}.")
        chosen = chosen_of(self.items.count, limit)
        identity = self._identity(chosen)

        def fetch(index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
            if size != self.size:
                raise ConfigError(
                    f"the inputs were passed for images of {self.size} pixels; the network takes "
                    f"{size}. Pass them with this network."
                )
            return picture(self.shown(chosen[index]))

        def exact(index: int) -> Float32[np.ndarray, "size size 3"] | None:
            shown = self.shown(chosen[index])
            return None if shown.dtype == np.uint8 else shown

        return ImageSource(
            identity=identity,
            origin=self.place(identity),
            names=tuple(f"item/{i}" for i in chosen),
            fetch=fetch,
            labels=self._labels_of(chosen),
            exact=exact,
        )

    def place(self, identity: dict[str, Any]) -> str:
        """The name of these inputs while the program runs, or the folder of their images."""
        name = f"{slug(self.name or self.items.called)}-{identity['fingerprint'][:12]}"
        return f"{MEMORY}{name}" if self._folder is None else str(self._folder / name)

    def save(self, source: ImageSource) -> None:
        """Write the images of `source`, as the network is shown them, into its folder: PNG files
        in their order, and an empty file for an image that cannot be read.

        Raises ConfigError for tensors that are no pictures.
        """
        folder = Path(source.origin)
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(len(source)):
            file = io.BytesIO()
            try:
                shown = source.given(index, self.size)
            except UnreadableInputError:
                pass
            else:
                if shown.dtype != np.uint8:
                    raise ConfigError(
                        "save_images needs images of 8 bits; the inputs hold other floats. Leave "
                        "it out, or give PIL images or tensors of bytes."
                    )
                Image.fromarray(shown).save(file, "PNG")
            write_whole(folder / f"{index:08}.png", file.getvalue())

    def _identity(self, chosen: Sequence[int]) -> dict[str, Any]:
        read = list(chosen)
        if self.name and len(read) > SAMPLED:
            read = [chosen[i * (len(chosen) - 1) // (SAMPLED - 1)] for i in range(SAMPLED)]
        digests = []
        about = {"desc": "fingerprint", "unit": " images", "delay": 1.0}
        with progress_bar(total=len(read), **about) as bar:
            for place, index in enumerate(read):
                digests.append(self._digest(index, again=place < TWICE))
                bar.update()
        named = {"name": self.name, "sampled": len(read)} if self.name else {}
        return memory_identity(len(chosen), digests) | named

    def _digest(self, index: int, *, again: bool) -> str:
        """The digest of an item. An item that cannot be read is one that the harvest records."""
        if index not in self._digests:
            try:
                self.shown(index)
                if again and digest_of(self._read(index)) != self._digests[index]:
                    raise InputsNotFoundError(
                        f"inputs must give the same image each time; two readings of item {index} "
                        "differ. Take random transforms out of the data set."
                    )
            except (MemoryError, TendrilError):
                raise
            except Exception:  # a data set may raise anything on damaged bytes
                self._digests[index] = UNREADABLE
        return self._digests[index]

    def _labels_of(self, chosen: Sequence[int]) -> Labels | None:
        targets = self.items.targets if self._given is None else self._given
        if targets is None and self._labels and any(i not in self._labels for i in chosen):
            if any(label is not None for label in self._labels.values()):
                note("no classes are stored: with a name not all items are read. Pass labels=...")
            return None
        found = [self._labels.get(i) if targets is None else targets[i] for i in chosen]
        return labels_from(found, self.items.classes)


UNREADABLE = "unreadable"


def picture(shown: Shown) -> UInt8[np.ndarray, "size size 3"]:
    """An image as it is drawn on a page. Floats outside of 0..1 are spread over 0..255."""
    if shown.dtype == np.uint8:
        return shown
    low, high = min(0.0, float(shown.min())), max(1.0, float(shown.max()))
    if (low, high) != (0.0, 1.0):
        low, high = float(shown.min()), float(shown.max())
    return np.rint((shown - low) * (255 / (high - low))).astype(np.uint8)


def digest_of(shown: Shown) -> str:
    """SHA-256 of what the network is shown, in hex."""
    digest = hashlib.sha256(f"{shown.dtype.name}:{shown.shape}:".encode())
    digest.update(shown.tobytes())
    return digest.hexdigest()


def memory_identity(count: int, digests: Iterable[str]) -> dict[str, Any]:
    """The identity of images by what the network is shown."""
    fingerprint = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return {"kind": "memory", "count": count, "fingerprint": fingerprint, "fit": FIT}


def as_shown(images: ImageSource, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of images from elsewhere, such as a folder, as if a program had held them: to
    compare with that of a store whose inputs were `stored`. Reads all images."""
    count, size = len(images), int(stored["size"])
    sampled = int(stored.get("sampled", count))
    numbers = [i * (count - 1) // max(sampled - 1, 1) for i in range(sampled)]
    digests = []
    for index in numbers:
        try:
            digests.append(digest_of(images.given(index, size)))
        except UnreadableInputError:
            digests.append(UNREADABLE)
    named = {key: stored[key] for key in ("name", "sampled") if key in stored}
    return memory_identity(count, digests) | named


def labels_from(found: Sequence[Any], classes: Sequence[str]) -> Labels | None:
    """Classes from what a data set gives: numbers, or names. None unless there are two or more."""
    plain = [getattr(label, "item", lambda one=label: one)() for label in found]
    words = sorted({label for label in plain if isinstance(label, str)})
    if words:
        numbers = [words.index(one) if isinstance(one, str) else NO_CLASS for one in plain]
        names = tuple(words)
    else:
        whole = [one if isinstance(one, int) and one >= 0 else NO_CLASS for one in plain]
        numbers, most = whole, max(whole, default=NO_CLASS)
        names = tuple(classes) if most < len(classes) else tuple(map(str, range(most + 1)))
    if len(names) < 2 or max(numbers, default=NO_CLASS) == NO_CLASS:
        return None
    return Labels(names, np.array(numbers, np.int32))


def _checked(labels: Any, count: int) -> Sequence[Any]:
    found = list(labels)
    if len(found) != count:
        raise ConfigError(
            f"labels must give a class for each of the {count} inputs; got {len(found)}."
        )
    return found


def first_item(items: Items) -> Item | None:
    """The first item that can be read, if there is one."""
    for index in range(items.count):
        try:
            return items.read(index)
        except (MemoryError, TendrilError):
            raise
        except Exception:  # a data set may raise anything on damaged bytes
            continue
    return None


def size_of(item: Item | None) -> int:
    """The size of an image if it is a square of floats, or one of bytes of at most the usual 224
    pixels; else 224. Raises ConfigError for floats that are no square."""
    if item is None:
        return USUAL
    height, width = item.pixels.shape[:2]
    if item.fixed and height != width:
        raise ConfigError(
            f"tensors of floats must be squares; the inputs have {height} x {width} pixels. Resize "
            "them, or give PIL images, which are resized and cropped."
        )
    square = height == width and (item.fixed or height <= USUAL)
    return int(height) if square else USUAL


_memories: "OrderedDict[str, Memory]" = OrderedDict()


def remember(
    inputs: Any,
    size: int,
    *,
    limit: int | None = None,
    unit: bool = False,
    name: str = "",
    labels: Any = None,
    folder: Path | None = None,
) -> str:
    """Keep inputs, and return the name by which `open_images` finds them in this process. With a
    `folder` the name is that of a folder in it, into which the images are written."""
    items = inputs if isinstance(inputs, Items) else items_of(inputs)
    memory = Memory(items, size, unit=unit, name=name, labels=labels, folder=folder)
    source = memory.source(limit)
    place = source.origin
    if folder is not None:
        memory.save(source)
    _memories.pop(place, None)
    _memories[place] = memory
    REMEMBERED[place] = memory.source
    while len(_memories) > KEPT:
        REMEMBERED.pop(_memories.popitem(last=False)[0], None)
    return place


def remember_texts(texts: Sequence[Any]) -> str:
    """Keep texts, one document each, and return the name by which `open_text` finds them."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(
                f"texts must be a list of strings; item {number} has the type "
                f"{type(text).__name__}."
            )
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    place, kept = f"{MEMORY}texts-{digest[:12]}", list(texts)
    key = {"kind": "memory", "count": len(kept), "fingerprint": digest}
    HELD[place] = TextSource(key, place, lambda: iter(kept))
    return place
