"""Bytes of a file -> pixels: one image decoded, turned upright, resized and cropped.

Memory is bounded: the size is checked before an image is decoded, conversions work on bands of
rows, and only one large image is decoded at a time.
"""

import functools
import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

MARGIN = 8 / 7  # the shorter side after resizing over the side of the crop
ORIENTATION = 0x0112  # the EXIF tag for the camera's orientation; 1 is upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MOST_PIXELS = 178_956_970  # Pillow's own limit: 716 MB, as Pillow takes up to 4 bytes a pixel
MOST_FILE_BYTES = 2**31  # more than an uncompressed image of MOST_PIXELS with 8 bytes a pixel
BAND_PIXELS = 2**22  # are converted at a time
LARGE_PIXELS = 2**25  # images from here on are decoded one at a time
ONE_LARGE = threading.Lock()

Pixels = UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]

# Pillow would run Ghostscript or Windows for these, or knows only their headers.
NOT_DECODED = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")


def read_file(path: Path) -> bytes:
    """The content of a regular file. Raises OSError for a pipe, a device or a folder, which might
    never end, and for files larger than MOST_FILE_BYTES."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    with path.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        if length > MOST_FILE_BYTES:
            raise OSError(f"{length:,} bytes are more than {MOST_FILE_BYTES:,}")
        file.seek(0)
        return file.read()


def fit(content: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decode an image to RGB: upright, on white if transparent, resized and centre-cropped.

    Raises whatever Pillow raises for damaged content, and ValueError for more than MOST_PIXELS.
    """
    pixels = decode(content)
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    scaled = min(max(shorter, size), round(size * MARGIN))
    side = size * shorter / scaled  # of the crop, in pixels of the original image
    left, top = (width - side) / 2, (height - side) / 2
    if scaled == shorter:
        cut = pixels[int(top) : int(top) + size, int(left) : int(left) + size]
    else:
        box = (left, top, left + side, top + side)
        whole = Image.fromarray(pixels)
        cut = np.asarray(whole.resize((size, size), Image.Resampling.BICUBIC, box=box))
    if cut.ndim == 2:
        cut = np.repeat(cut[:, :, None], 3, axis=2)
    return np.array(cut)  # a copy, since Pillow's memory is read-only


def decode(content: bytes) -> Pixels:
    """The upright pixels of an image, as RGB or, where the image is grey, as grey levels."""
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}")
        with ONE_LARGE if width * height > LARGE_PIXELS else nullcontext():
            pixels_HWC = _plain_jpeg(content, image)
            return _upright(image) if pixels_HWC is None else pixels_HWC


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that are tried, in Pillow's order."""
    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_DECODED)


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


def _upright(image: Image.Image) -> Pixels:
    """Pixels of any image that Pillow decodes. Of EXIF only the orientation is read: other
    tags may have values of any type."""
    image.load()
    orientation = image.getexif().get(ORIENTATION, 1)
    turns = [turn for value, turn in UPRIGHT.items() if value == orientation]
    if turns:  # a dictionary would refuse a list as the tag's value
        image = image.transpose(turns[0])
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode == "L":
        return np.asarray(image)
    pixels_HWC = np.empty((image.height, image.width, 3), np.uint8)
    for rows, band in _bands(image):
        if band.mode == "RGBA":
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        pixels_HWC[rows] = np.asarray(band.convert("RGB"))
    return pixels_HWC


def _eight_bits(image: Image.Image) -> UInt8[np.ndarray, "h w"]:
    """Grey levels of 16-bit, integer and float images as 8 bits.

    Integers are divided by 257 if any exceeds 255; floats up to 1 are multiplied by 255.
    """
    most = np.max([np.asarray(band).max(initial=0) for _, band in _bands(image)], initial=0)
    pixels_HW = np.empty((image.height, image.width), np.uint8)
    for rows, band in _bands(image):
        values = np.asarray(band).astype(np.float64)
        if image.mode.startswith("I"):
            values = values / 257 if most > 255 else values
        elif most <= 1:
            values = values * 255
        pixels_HW[rows] = np.clip(values, 0, 255).round().astype(np.uint8)
    return pixels_HW


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The image in bands of at most BAND_PIXELS; a small image is one band."""
    step = max(1, BAND_PIXELS // max(1, image.width))
    if step >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))
