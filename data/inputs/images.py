"""Sources of images: a folder, a Hugging Face image set, or dead leaves.

Every source gives square RGB images of the size that the subject takes, fitted as networks are
evaluated on ImageNet: the shorter side is scaled to 8/7 of the size (256 for 224; bicubic,
antialiased) and the centre cut out. Images whose shorter side lies between the two are only
cut, smaller ones scaled up to the size itself.
"""

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps

from .. import order
from ..errors import ConfigError, InputsNotFoundError, UnreadableInputError, UnreadableInputsError
from .hugging_face import HUGGING_FACE, is_on_disk, open_table

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
DEAD_LEAVES = "dead-leaves"
MARGIN = 8 / 7  # of a fitted image over what is cut out of it
FIT = "shorter side to 8/7 bicubic, centre crop"
ORIENTATION = 0x0112  # EXIF's tag of how the camera was held; 1 is upright
IN_MEMORY = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # what Pillow calls a file
SAMPLE = 0x5A3E  # the key of the sample that --limit takes
HEAD_BYTES = 4096  # of each end of a file: what the fingerprint looks at, beside its size


@final
@dataclass(frozen=True)
class ImageSource:
    """A numbered set of images.

    `identity` is what the spec of a harvest says of them, `origin` where they were found on
    this machine; `fetch` gives the image of a number at a size, or raises OSError, ValueError
    or SyntaxError (as Pillow does) where it cannot.
    """

    identity: dict[str, Any]
    origin: str
    names: tuple[str, ...]
    fetch: Callable[[int, int], UInt8[np.ndarray, "size size 3"]]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """What image number `index` is called."""
        return self.names[index]

    def load(self, index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """Image number `index` as RGB. Raises UnreadableInputError where it cannot be read."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of damaged EXIF and the like: it reads or not
                return self.fetch(index, size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = IN_MEMORY.sub("", str(error))  # it goes on record, and an address is chance
            raise UnreadableInputError(f"{type(error).__name__}: {reason}") from error


def open_images(inputs: str, limit: int | None = None) -> ImageSource:
    """The images that `inputs` stands for: the path of a folder (or of a set written by
    `datasets`), `hf:NAME_OR_PATH[@SPLIT]`, or `dead-leaves[:SEED]`.

    `limit` takes that many of them at random, the same ones each time, in their order; of
    dead leaves it says how many there are. Raises InputsNotFoundError, ConfigError.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit wants a number of images from 1 on, and got {limit}.")
    if inputs == DEAD_LEAVES or inputs.startswith(f"{DEAD_LEAVES}:"):
        return _dead_leaves(inputs, limit)
    if inputs.startswith(HUGGING_FACE):
        return _hugging_face(inputs.removeprefix(HUGGING_FACE), limit)
    folder = Path(inputs)
    if not inputs or not folder.is_dir():
        raise InputsNotFoundError(
            f"--inputs wants a folder of images, {HUGGING_FACE}NAME or {DEAD_LEAVES}, and "
            f"{inputs!r} is no folder here; check the path."
        )
    if is_on_disk(folder):
        return _hugging_face(inputs, limit)
    return _folder(folder, limit)


def first_readable(source: ImageSource, size: int) -> int:
    """The number of the first image that can be read; raises UnreadableInputsError."""
    reason = ""
    for index in range(len(source)):
        try:
            source.load(index, size)
            return index
        except UnreadableInputError as error:
            reason = reason or f"{source.name(index)}: {error}"
    raise UnreadableInputsError(
        f"none of the {len(source)} images in {source.origin} can be read ({reason}); "
        "give --inputs a folder with whole images."
    )


def fit(content: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An encoded image as RGB: upright, transparent parts white, scaled and cut to a square."""
    with Image.open(io.BytesIO(content)) as image:
        pixels_HWC = _plain_jpeg(content, image)
        if pixels_HWC is None:
            pixels_HWC = np.asarray(_upright_rgb(image))
    height, width = pixels_HWC.shape[:2]
    shorter = min(height, width)
    scaled = min(max(shorter, size), round(size * MARGIN))
    side = size * shorter / scaled  # of what is cut out, in pixels of the image as it is
    left, top = (width - side) / 2, (height - side) / 2
    if scaled == shorter:
        cut_HWC = pixels_HWC[int(top) : int(top) + size, int(left) : int(left) + size]
        return np.array(cut_HWC)  # a copy: Pillow's own memory is read-only
    box = (left, top, left + side, top + side)
    whole = Image.fromarray(pixels_HWC)
    return np.array(whole.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _plain_jpeg(content: bytes, image: Image.Image) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels of an upright colour JPEG without a fault, in half the time that Pillow takes
    of two threads (its way into numpy holds the interpreter), and the same; None for others."""
    if image.format != "JPEG" or image.mode != "RGB" or image.getexif().get(ORIENTATION, 1) != 1:
        return None
    try:
        pixels_HWC: UInt8[np.ndarray, "h w 3"] = simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        return None  # Pillow says what is wrong with it, or overlooks it
    return pixels_HWC


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, integer and float greys: the highest byte of 16 bits, the nearest grey else."""
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I"):
        values = values / 257 if values.max(initial=0) > 255 else values
    elif values.max(initial=0) <= 1:
        values = values * 255
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))


def _folder(folder: Path, limit: int | None) -> ImageSource:
    found = sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and p.is_file()
    )
    if not found:
        raise InputsNotFoundError(
            f"the folder {folder} holds no image ({', '.join(SUFFIXES)}), also in its "
            "subfolders; give --inputs a folder of images."
        )
    names = tuple(found[i] for i in _choose(len(found), limit))

    def fetch(index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        return fit((folder / names[index]).read_bytes(), size)

    def ends() -> Iterator[tuple[str, int, bytes]]:
        for name in names:
            with (folder / name).open("rb") as file:
                head = file.read(HEAD_BYTES)
                length = file.seek(0, io.SEEK_END)
                file.seek(max(0, length - HEAD_BYTES))
                yield name, length, head + file.read()

    return ImageSource(_identity("folder", names, ends()), str(folder), names, fetch)


def _hugging_face(name: str, limit: int | None) -> ImageSource:
    import datasets  # takes a second to import, and few harvests need it

    path, _, split = name.partition("@")
    table = open_table(path, split, "image set")
    columns = [c for c, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise ConfigError(
            f"the set {path!r} has no column of images (its columns are "
            f"{', '.join(table.features)}); give --inputs a set of images."
        )
    encoded = table.cast_column(columns[0], datasets.Image(decode=False))
    chosen = _choose(len(encoded), limit)
    names = tuple(f"{split or 'row'}/{i}" for i in chosen)

    def content(index: int) -> bytes:
        cell = encoded[chosen[index]][columns[0]]
        whole: bytes = cell["bytes"] or Path(cell["path"]).read_bytes()
        return whole

    def fetch(index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        return fit(content(index), size)

    def ends() -> Iterator[tuple[str, int, bytes]]:
        for index, name in enumerate(names):
            whole = content(index)
            yield name, len(whole), whole[:HEAD_BYTES] + whole[-HEAD_BYTES:]

    origin = f"{HUGGING_FACE}{name}" if not Path(path).exists() else name
    return ImageSource(_identity("hugging-face", names, ends()), origin, names, fetch)


def _dead_leaves(inputs: str, limit: int | None) -> ImageSource:
    from .procedural import VERSION, dead_leaves

    text = inputs.removeprefix(DEAD_LEAVES).removeprefix(":") or "0"
    if not re.fullmatch(r"\d+", text):
        raise ConfigError(f"--inputs {DEAD_LEAVES}:SEED wants a whole number, and got {text!r}.")
    if limit is None:
        raise ConfigError(f"--inputs {inputs} has no end; say how many with --limit, e.g. 500.")
    seed = int(text)

    def fetch(index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        return dead_leaves(seed, index, size)

    return ImageSource(
        identity={"kind": DEAD_LEAVES, "version": VERSION, "seed": seed, "count": limit},
        origin=inputs,
        names=tuple(f"{seed}/{i}" for i in range(limit)),
        fetch=fetch,
    )


def _choose(count: int, limit: int | None) -> list[int]:
    if limit is None or limit >= count:
        return list(range(count))
    chosen: list[int] = order.sample(count, limit, SAMPLE).tolist()
    return chosen


def _identity(
    kind: str, names: tuple[str, ...], ends: Iterator[tuple[str, int, bytes]]
) -> dict[str, Any]:
    """The fingerprint of many files without reading them whole: SHA-256 over name, size and
    the first and last 4 KiB of each."""
    digest = hashlib.sha256()
    for name, length, content in ends:
        digest.update(f"{len(name)}:{name}:{length}:".encode())
        digest.update(hashlib.sha256(content).digest())
    return {"kind": kind, "count": len(names), "fingerprint": digest.hexdigest(), "fit": FIT}
