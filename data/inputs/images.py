"""Sources of images: a folder, a Hugging Face dataset, or generated dead leaves.

Every source gives square RGB images of the subject's input size, prepared as for ImageNet
evaluation: images are resized (shorter side 256 for a 224-pixel network, that is 8/7; bicubic,
antialiased) and centre-cropped. Images whose shorter side lies between the two sizes are only
cropped; smaller images are enlarged to the input size.
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
MARGIN = 8 / 7  # the shorter side after resizing over the side of the crop
FIT = "shorter side to 8/7 bicubic, centre crop"
ORIENTATION = 0x0112  # the EXIF tag for the camera's orientation; 1 is upright
IN_MEMORY = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # Pillow's name of a file
SAMPLE = 0x5A3E  # the key of the sample that --limit draws
HEAD_BYTES = 4096  # bytes at each end of a file that enter its fingerprint


@final
@dataclass(frozen=True)
class ImageSource:
    """A numbered set of images.

    `identity` is their entry in the spec of a harvest, and `origin` their place on this machine.
    `fetch(index, size)` returns an image; it raises OSError, ValueError or SyntaxError (as Pillow
    does) for an unreadable one.
    """

    identity: dict[str, Any]
    origin: str
    names: tuple[str, ...]
    fetch: Callable[[int, int], UInt8[np.ndarray, "size size 3"]]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The name of image number `index`."""
        return self.names[index]

    def load(self, index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """Image number `index` as RGB. Raises UnreadableInputError if it cannot be read."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # e.g. of damaged EXIF, which does no harm
                return self.fetch(index, size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = IN_MEMORY.sub("", str(error))  # recorded in the store, so without an address
            raise UnreadableInputError(f"{type(error).__name__}: {reason}") from error


def open_images(inputs: str, limit: int | None = None) -> ImageSource:
    """The images that `inputs` names.

    `inputs` is a folder of images, a dataset written by `datasets.save_to_disk`,
    `hf:NAME_OR_PATH[@SPLIT]`, or `dead-leaves[:SEED]`. `limit` draws that many images at random,
    always the same ones, in their original order. For dead leaves it is the number of images.
    Raises InputsNotFoundError, ConfigError.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1 image; got {limit}.")
    if inputs == DEAD_LEAVES or inputs.startswith(f"{DEAD_LEAVES}:"):
        return _dead_leaves(inputs, limit)
    if inputs.startswith(HUGGING_FACE):
        return _hugging_face(inputs.removeprefix(HUGGING_FACE), limit)
    folder = Path(inputs)
    if not inputs or not folder.is_dir():
        raise InputsNotFoundError(
            f"--inputs must be a folder of images, {HUGGING_FACE}NAME or {DEAD_LEAVES}; got "
            f"{inputs!r}, which is not a folder. Check the path."
        )
    if is_on_disk(folder):
        return _hugging_face(inputs, limit)
    return _folder(folder, limit)


def first_readable(source: ImageSource, size: int) -> int:
    """The number of the first readable image. Raises UnreadableInputsError if there is none."""
    reason = ""
    for index in range(len(source)):
        try:
            source.load(index, size)
            return index
        except UnreadableInputError as error:
            reason = reason or f"{source.name(index)}: {error}"
    raise UnreadableInputsError(
        f"none of the {len(source)} images in {source.origin} can be read ({reason}). Give "
        "--inputs a folder of readable images."
    )


def fit(content: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decode an image to RGB: upright, on white if transparent, resized and centre-cropped."""
    with Image.open(io.BytesIO(content)) as image:
        pixels_HWC = _plain_jpeg(content, image)
        if pixels_HWC is None:
            pixels_HWC = np.asarray(_upright_rgb(image))
    height, width = pixels_HWC.shape[:2]
    shorter = min(height, width)
    scaled = min(max(shorter, size), round(size * MARGIN))
    side = size * shorter / scaled  # of the crop, in pixels of the original image
    left, top = (width - side) / 2, (height - side) / 2
    if scaled == shorter:
        cut_HWC = pixels_HWC[int(top) : int(top) + size, int(left) : int(left) + size]
        return np.array(cut_HWC)  # a copy, since Pillow's memory is read-only
    box = (left, top, left + side, top + side)
    whole = Image.fromarray(pixels_HWC)
    return np.array(whole.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _plain_jpeg(content: bytes, image: Image.Image) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels of an upright RGB JPEG, equal to Pillow's; None for other images.

    With two threads it takes half of Pillow's time, whose conversion to numpy holds the GIL.
    """
    if image.format != "JPEG" or image.mode != "RGB" or image.getexif().get(ORIENTATION, 1) != 1:
        return None
    try:
        pixels_HWC: UInt8[np.ndarray, "h w 3"] = simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        return None  # Pillow may read it, or say what is wrong
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
    """Grey levels of 16-bit, integer and float images as 8 bits.

    Integers are divided by 257 if any exceeds 255; floats up to 1 are multiplied by 255.
    """
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
            f"--inputs must be a folder of images; got {folder}, which holds none in any of its "
            f"subfolders ({', '.join(SUFFIXES)})."
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
    import datasets  # takes a second to import

    path, _, split = name.partition("@")
    table = open_table(path, split, "image dataset")
    columns = [c for c, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise ConfigError(
            f"the dataset {path!r} must have a column of images; it has "
            f"{', '.join(table.features)}. Give --inputs another dataset."
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
        raise ConfigError(f"--inputs {DEAD_LEAVES}:SEED needs an integer seed; got {text!r}.")
    if limit is None:
        raise ConfigError(f"--inputs {inputs} is endless. Set --limit, e.g. --limit 500.")
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
    """The identity of a set of files, with a fingerprint.

    The fingerprint is the SHA-256 over the name, the size and the first and last 4 KiB of each
    file, so that files need not be read whole.
    """
    digest = hashlib.sha256()
    for name, length, content in ends:
        digest.update(f"{len(name)}:{name}:{length}:".encode())
        digest.update(hashlib.sha256(content).digest())
    return {"kind": kind, "count": len(names), "fingerprint": digest.hexdigest(), "fit": FIT}
