"""Image files that are damaged, hostile, or of a kind that nobody meant."""

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Maker = Callable[[random.Random], tuple[str, bytes]]
"""Gives a suffix and the content of a file."""
KINDS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif"}
MODES = ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "LAB")
HEADER = 64  # bytes at the start, where most of what a decoder trusts lies


def picture(
    drawn: random.Random, mode: str = "RGB", size: tuple[int, int] = (48, 40)
) -> Image.Image:
    """A picture of noise."""
    pixels = np.random.default_rng(drawn.randrange(1 << 30)).integers(0, 255, (*size[::-1], 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((pixels[..., 0] * 250).astype(np.uint16))
    return image if mode == "RGB" else image.convert("RGB").convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def truncated(drawn: random.Random) -> tuple[str, bytes]:
    """A file that ends too early."""
    kind = drawn.choice(list(KINDS))
    content = encoded(picture(drawn), kind)
    return KINDS[kind], content[: drawn.randrange(len(content))]


def flipped(drawn: random.Random) -> tuple[str, bytes]:
    """Some bits of the header are flipped."""
    kind = drawn.choice(list(KINDS))
    content = bytearray(encoded(picture(drawn), kind))
    for _ in range(drawn.randint(1, 4)):
        content[drawn.randrange(min(HEADER, len(content)))] ^= 1 << drawn.randrange(8)
    return KINDS[kind], bytes(content)


def scrambled(drawn: random.Random) -> tuple[str, bytes]:
    """Bytes anywhere are replaced."""
    kind = drawn.choice(list(KINDS))
    content = bytearray(encoded(picture(drawn), kind))
    for _ in range(drawn.randint(1, 20)):
        content[drawn.randrange(len(content))] = drawn.randrange(256)
    return KINDS[kind], bytes(content)


def wrong_suffix(drawn: random.Random) -> tuple[str, bytes]:
    """Another kind of file than its name says."""
    kind = drawn.choice(list(KINDS))
    return drawn.choice([".png", ".jpg", ".webp"]), encoded(picture(drawn), kind)


def no_image(drawn: random.Random) -> tuple[str, bytes]:
    """Text, nothing, zeros or noise under the name of an image."""
    content = drawn.choice(
        [
            b"",
            b"\0" * 5000,
            b"not an image\n",
            b"<svg/>",
            b"\x89PNG\r\n\x1a\n",
            drawn.randbytes(999),
        ]
    )
    return drawn.choice(list(KINDS.values())), content


def other_mode(drawn: random.Random) -> tuple[str, bytes]:
    """A sound file of a mode that is not RGB."""
    image = picture(drawn, drawn.choice(MODES), (drawn.randint(1, 60), drawn.randint(1, 60)))
    kind = "PNG" if image.mode in ("1", "L", "LA", "P", "RGBA", "I;16") else "TIFF"
    return KINDS[kind], encoded(image, kind)


def strange_exif(drawn: random.Random) -> tuple[str, bytes]:
    """EXIF whose orientation has a wrong type or place."""
    entry = struct.pack(
        "<HHII",
        drawn.choice([0x0112, 0x010F, 0x8769]),
        drawn.randrange(16),
        drawn.choice([0, 1, 2, 1 << 31]),
        drawn.randrange(1 << 32),
    )
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + b"\0" * 4
    kind = drawn.choice(["JPEG", "PNG", "WEBP"])
    return KINDS[kind], encoded(picture(drawn), kind, exif=exif)


def bomb(drawn: random.Random) -> tuple[str, bytes]:
    """A small file that says it has a thousand million pixels."""
    side = drawn.choice([20_000, 60_000, 2**31 - 1])
    head = struct.pack(">IIBBBBB", side, side, drawn.choice([8, 16]), 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100_000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return ".png", b"\x89PNG\r\n\x1a\n" + body


MAKERS: tuple[Maker, ...] = (
    *(truncated, flipped, scrambled, wrong_suffix, no_image),
    *(other_mode, strange_exif, bomb),
)


def decodes(path: Path) -> bool:
    """True if Pillow reads the whole file, which is what a harvest may keep."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            image.load()
    except Exception:  # decoders raise whatever they like
        return False
    return True
