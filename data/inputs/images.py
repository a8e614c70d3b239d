"""Sources of images: a folder, a Hugging Face dataset, or generated dead leaves.

Every source gives square RGB images of the subject's input size, prepared as for ImageNet
evaluation: images are resized (shorter side 256 for a 224-pixel network, that is 8/7; bicubic,
antialiased) and centre-cropped. Images whose shorter side lies between the two sizes are only
cropped; smaller images are enlarged to the input size.
"""

import hashlib
import io
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float32, UInt8

from .. import order
from ..cli import note, printable
from ..errors import ConfigError, InputsNotFoundError, UnreadableInputError, UnreadableInputsError
from ..store.labels import Labels, folder_labels
from .decoding import WhiteOf, fit, largest, may_have_no_range, white_for
from .files import listed, read_file, say_skipped, utf8
from .hugging_face import (
    HUGGING_FACE,
    cell_bytes,
    holds_parquet,
    image_column,
    is_on_disk,
    is_parquet,
    label_column,
    name_and_split,
    open_table,
)

# What Pillow reads. The list is fixed, so that a store's name does not depend on how Pillow was
# built; what a Pillow cannot decode is an unreadable input.
COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
MORE_SUFFIXES = (
    ".apng .avif .avifs .blp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .icb "
    ".icns .ico .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpf .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm "
    ".pnm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga .vda .vst .xbm .xpm"
)
SUFFIXES = (*COMMON_SUFFIXES, *MORE_SUFFIXES.split())
# How the images begin that people store without a suffix: JPEG, PNG, GIF, TIFF, JPEG 2000; WebP
# and AVIF are told by their bytes 4 to 12.
HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
BRANDS = (b"WEBP", b"ftypavif")
DEAD_LEAVES = "dead-leaves"
FIT = "shorter side to 8/7 bicubic, centre crop"
IN_MEMORY = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # Pillow's name of a file
SAMPLE = 0x5A3E  # the key of the sample that --limit draws
MOST_GENERATED = 10**8  # images of dead leaves; their names are kept in memory
HEAD_BYTES = 4096  # bytes at each end of a file that enter its fingerprint
MEMORY = "memory:"  # before the name of inputs that a Python program holds
UNREADABLE = -1  # the length, in a fingerprint, of an input whose bytes cannot be read
MOST_REASON = 500  # characters of the reason why an input cannot be read


@final
@dataclass(frozen=True)
class ImageSource:
    """A numbered set of images.

    `identity` is their entry in the spec of a harvest, and `origin` their place on this machine.
    `fetch(index, size)` returns an image; for an unreadable one it may raise any exception, as
    decoders do. `saturated` maps the images read so far that have pixels below black or above
    white, which no 8-bit image has, to the number of these pixels. `labels` are the images'
    classes, where the source has any; they are no part of the identity. `exact(index)` returns what
    the network is given where that is no 8-bit image (see `given`).
    """

    identity: dict[str, Any]
    origin: str
    names: tuple[str, ...]
    fetch: Callable[[int, int], UInt8[np.ndarray, "size size 3"]]
    saturated: dict[int, int] = field(default_factory=dict)
    labels: Labels | None = None
    exact: Callable[[int], Float32[np.ndarray, "size size 3"] | None] | None = None

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
        except (MemoryError, InputsNotFoundError, ConfigError):
            raise  # says nothing about the image
        except Exception as error:  # decoders raise exceptions of many types on damaged bytes
            reason = IN_MEMORY.sub("", str(error))  # recorded in the store, so without an address
            line = printable(reason).replace("\n", " ")
            kind = type(error).__name__
            if kind == "error":  # of zlib, struct and others: only the module tells them apart
                kind = f"{type(error).__module__}.{kind}"
            raise UnreadableInputError(f"{kind}: {line[:MOST_REASON]}") from error

    def given(
        self, index: int, size: int
    ) -> UInt8[np.ndarray, "size size 3"] | Float32[np.ndarray, "size size 3"]:
        """What the network is given: the pixels of `load`, which stand for 0..1, or the numbers of
        a tensor as they are. Raises UnreadableInputError."""
        pixels = self.load(index, size)
        numbers = self.exact(index) if self.exact else None
        return pixels if numbers is None else numbers


REMEMBERED: dict[str, Callable[[int | None], ImageSource]] = {}
"""Inputs that this program holds, by the names that `open_images` takes (inputs/memory.py)."""


def open_images(inputs: str, limit: int | None = None) -> ImageSource:
    """The images that `inputs` names.

    `inputs` is a folder of images or of parquet files, a dataset written by
    `datasets.save_to_disk`, a parquet file, `hf:NAME_OR_PATH[@SPLIT]`, or `dead-leaves[:SEED]`.
    `limit` draws that many images at random, always the same ones, in their original order. For
    dead leaves it is the number of images.
    Raises InputsNotFoundError, ConfigError.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1 image; got {limit}.")
    if inputs in REMEMBERED:
        return REMEMBERED[inputs](limit)
    if inputs.startswith(MEMORY):
        raise InputsNotFoundError(
            f"{inputs} names images that this Python program does not hold. Pass them again: "
            "inputs=... in Python, or --inputs FOLDER with the same images."
        )
    if inputs == DEAD_LEAVES or inputs.startswith(f"{DEAD_LEAVES}:"):
        return _dead_leaves(inputs, limit)
    if inputs.startswith(HUGGING_FACE):
        return _hugging_face(inputs.removeprefix(HUGGING_FACE), limit)
    folder = Path(name_and_split(inputs)[0])
    if not inputs or not (folder.is_dir() or is_parquet(folder)):
        raise InputsNotFoundError(
            f"--inputs must be a folder of images, {HUGGING_FACE}NAME or {DEAD_LEAVES}; got "
            f"{inputs!r}, which is not a folder. Check the path."
        )
    if str(folder) != str(Path(inputs)) or is_on_disk(folder) or is_parquet(folder):
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


def readable(source: ImageSource, index: int, size: int) -> UInt8[np.ndarray, "size size 3"] | None:
    """Image number `index`, or None with a note if it cannot be read (any more)."""
    try:
        return source.load(index, size)
    except UnreadableInputError as error:
        note(f"the image {source.name(index)} cannot be read ({error}); it is left out.")
        return None


def _folder(folder: Path, limit: int | None) -> ImageSource:
    found, skipped, irregular = listed(folder, _is_image)
    if not found and holds_parquet(folder):
        return _hugging_face(str(folder), limit)
    say_skipped(skipped, "images Pillow reads", "an image Pillow reads")
    say_skipped(irregular, "regular", "regular")
    if not found:
        raise InputsNotFoundError(
            f"--inputs must be a folder of images; got {folder}, which holds none in any of its "
            f"subfolders ({', '.join(COMMON_SUFFIXES)} and others)."
        )
    paths = tuple(found[i] for i in chosen_of(len(found), limit))
    names = tuple(utf8(path) for path in paths)

    def read(index: int, most: int | None = None) -> bytes:
        return read_file(folder / paths[index], most)

    def ends() -> Iterator[tuple[str, int, bytes]]:
        for path, name in zip(paths, names, strict=True):
            try:
                with (folder / path).open("rb") as file:
                    head = file.read(HEAD_BYTES)
                    length = file.seek(0, io.SEEK_END)
                    file.seek(max(0, length - HEAD_BYTES))
                    tail = file.read()
            except OSError:  # the harvest records why
                length, head, tail = UNREADABLE, b"", b""
            yield name, length, head + tail

    labels = folder_labels(names, [utf8(path) for path in found])
    return _source(_identity("folder", names, ends()), str(folder), names, read, labels)


def _source(
    identity: dict[str, Any],
    origin: str,
    names: tuple[str, ...],
    read: Callable[[int, int | None], bytes],
    labels: Labels | None,
) -> ImageSource:
    """A source whose image number i is the file `read(i, None)`; `read(i, n)` gives its first n
    bytes."""
    saturated: dict[int, int] = {}
    white_of = _white_of(len(names), read)

    def fetch(index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        return fit(read(index, None), size, white_of, partial(_count, saturated, index))

    return ImageSource(identity, origin, names, fetch, saturated, labels)


def _count(saturated: dict[int, int], index: int, pixels: int) -> None:
    if pixels:
        saturated[index] = pixels


def _white_of(count: int, read: Callable[[int, int | None], bytes]) -> WhiteOf:
    """The value that is white in the images of mode I, and in those of mode F.

    It is the same for all images of a set, so that their brightness can be compared. The first
    such image has all others read for their largest pixel; a set without such images is not read.
    """
    found: dict[str, float] = {}
    alone = threading.Lock()

    def white_of(mode: str) -> float:
        with alone:
            if mode not in found:
                pixels = [p for p in _largest(count, read, mode) if math.isfinite(p)]
                most = max(pixels, default=0.0)
                found[mode] = white_for(mode, most)
                note(
                    f"{len(pixels):,} images have {'integers' if mode == 'I' else 'floats'} as "
                    f"pixels, up to {most:g}: {found[mode]:g} is white in all of them."
                )
            return found[mode]

    return white_of


def _largest(count: int, read: Callable[[int, int | None], bytes], mode: str) -> Iterator[float]:
    for index in range(count):
        try:
            if may_have_no_range(read(index, HEAD_BYTES)):
                yield largest(read(index, None), mode)
        except MemoryError:
            raise
        except Exception:  # the harvest records why
            continue


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (not suffix and _begins_as_image(path))


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(HEADS) or head.endswith(BRANDS)


def _hugging_face(name: str, limit: int | None) -> ImageSource:
    """The images of a dataset. Their names do not tell how its place was given, so that a saved
    dataset, its parquet file and its split by name have the same identity."""
    path, split = name_and_split(name)
    table = open_table(path, split, "image dataset")
    encoded = image_column(table, path)
    chosen = chosen_of(len(encoded), limit)
    names = tuple(f"row/{i}" for i in chosen)

    def read(index: int, most: int | None = None) -> bytes:
        return cell_bytes(encoded, chosen[index])[:most]

    def ends() -> Iterator[tuple[str, int, bytes]]:
        for index, name in enumerate(names):
            try:
                whole = cell_bytes(encoded, chosen[index])
            except MemoryError:
                raise
            except Exception:  # the harvest records why
                yield name, UNREADABLE, b""
            else:
                yield name, len(whole), whole[:HEAD_BYTES] + whole[-HEAD_BYTES:]

    origin = name if Path(path).exists() else f"{HUGGING_FACE}{name}"
    labels = label_column(table, chosen)
    return _source(_identity("hugging-face", names, ends()), origin, names, read, labels)


def _dead_leaves(inputs: str, limit: int | None) -> ImageSource:
    from .procedural import VERSION, dead_leaves

    text = inputs.removeprefix(DEAD_LEAVES).removeprefix(":") or "0"
    if not re.fullmatch(r"\d+", text):
        raise ConfigError(f"--inputs {DEAD_LEAVES}:SEED needs an integer seed; got {text!r}.")
    if limit is None:
        raise ConfigError(f"--inputs {inputs} is endless. Set --limit, e.g. --limit 500.")
    seed = int(text)
    if limit > MOST_GENERATED or seed >= 2**63:
        raise ConfigError(
            f"--inputs {DEAD_LEAVES}:SEED takes seeds below 2^63 and a --limit of at most "
            f"{MOST_GENERATED:,}; got {seed:,} and {limit:,}."
        )

    def fetch(index: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
        return dead_leaves(seed, index, size)

    return ImageSource(
        identity={"kind": DEAD_LEAVES, "version": VERSION, "seed": seed, "count": limit},
        origin=inputs,
        names=tuple(f"{seed}/{i}" for i in range(limit)),
        fetch=fetch,
    )


def chosen_of(count: int, limit: int | None) -> list[int]:
    """The numbers of the images that a limit draws."""
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
