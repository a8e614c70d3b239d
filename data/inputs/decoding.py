"""Bytes of a file -> pixels: one image decoded, turned upright, resized and cropped.

Memory is bounded: the size is checked before an image is decoded, conversions work on bands of
rows, and only one large image is decoded at a time.
"""

import functools
import io
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

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
BAND_PIXELS = 2**22  # are converted at a time
LARGE_PIXELS = 2**25  # images from here on are decoded one at a time
ONE_LARGE = threading.Lock()

EIGHT_BITS, SIXTEEN_BITS = 255.0, 65535.0
OVERSHOOT = 2  # times white that floats may reach after resizing
MODES = ("I", "F")  # the first letters of Pillow's modes for other pixels than bytes
SIXTEEN = ("PNG", "PPM")  # formats whose mode I means 16 bits
# Files that begin like this hold bytes or 16 bits: JPEG, PNG, GIF, BMP, RIFF (WebP).
RANGED = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")

Pixels = UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]
WhiteOf = Callable[[str], float]

# Pillow would run Ghostscript or Windows for these, or knows only their headers.
NOT_DECODED = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")


def fit(
    content: bytes,
    size: int,
    white_of: WhiteOf | None = None,
    count: Callable[[int], object] | None = None,
) -> UInt8[np.ndarray, "size size 3"]:
    """Decode an image to RGB: upright, on white if transparent, resized and centre-cropped.

    `white_of` is as in `decode`; `count` is called with the number of pixels that saturate. Raises
    whatever Pillow raises for damaged content, and ValueError for more than MOST_PIXELS and for
    pixels that are not finite.
    """
    pixels, saturated = decode_and_count(content, white_of)
    if count:
        count(saturated)
    return squared(pixels, size)


def squared(pixels: Pixels, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """RGB or grey pixels as RGB, resized and centre-cropped to a square."""
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
    return decode_and_count(content)[0]


def decode_and_count(content: bytes, white_of: WhiteOf | None = None) -> tuple[Pixels, int]:
    """The pixels of `decode`, and how many of them saturate.

    Pixels of 16 bits become p / 257. How bright an integer or a float pixel is, no file says:
    `white_of` gives the value that is white in a set of images of mode I or F. Values below 0 and
    above white saturate. Without it, the image is a set of its own.
    """
    with _opened(content) as image:
        mode, white = image.mode, 0.0
        if mode.startswith(MODES):  # before the lock, as other images may be read for it
            if _is_sixteen_bits(image):
                white = SIXTEEN_BITS
            else:
                white = white_of(mode) if white_of else white_for(mode, largest(content, mode))
        with ONE_LARGE if image.width * image.height > LARGE_PIXELS else nullcontext():
            pixels_HWC = _plain_jpeg(content, image)
            return upright(image, white) if pixels_HWC is None else (pixels_HWC, 0)


def largest(content: bytes, mode: str) -> float:
    """The largest pixel of an image of mode I or F whose range no file says; NaN for others."""
    with _opened(content) as image:
        if image.mode != mode or _is_sixteen_bits(image):
            return math.nan
        with ONE_LARGE if image.width * image.height > LARGE_PIXELS else nullcontext():
            return float(np.max([np.asarray(band).max(initial=0) for _, band in _bands(image)]))


def white_for(mode: str, most: float) -> float:
    """The value that is white in a set of images of mode I or F whose largest pixel is `most`.

    Integers have 8 or 16 bits. Floats reach 1, 255 or 65,535; resizing may have made them exceed
    it, by less than OVERSHOOT.
    """
    if mode == "I":
        return EIGHT_BITS if most <= EIGHT_BITS else SIXTEEN_BITS
    fitting = [white for white in (1.0, EIGHT_BITS) if most <= OVERSHOOT * white]
    return fitting[0] if fitting else SIXTEEN_BITS


def may_have_no_range(start: bytes) -> bool:
    """True unless a file begins like one whose pixels have 8 or 16 bits."""
    return not start.startswith(RANGED)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """An image whose pixels are not decoded yet. Raises ValueError for more than MOST_PIXELS."""
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}")
        yield image


def _is_sixteen_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN)


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


def upright(image: Image.Image, white: float) -> tuple[Pixels, int]:
    """Pixels of any image that Pillow decodes, and how many saturate. Of EXIF only the orientation
    is read: other tags may have values of any type."""
    image.load()
    orientation = image.getexif().get(ORIENTATION, 1)
    turns = [turn for value, turn in UPRIGHT.items() if value == orientation]
    if turns:  # a dictionary would refuse a list as the tag's value
        image = image.transpose(turns[0])
    if image.mode.startswith(MODES):
        return _eight_bits(image, white)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode == "L":
        return np.asarray(image), 0
    pixels_HWC = np.empty((image.height, image.width, 3), np.uint8)
    for rows, band in _bands(image):
        if band.mode == "RGBA":
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        pixels_HWC[rows] = np.asarray(band.convert("RGB"))
    return pixels_HWC, 0


def _eight_bits(image: Image.Image, white: float) -> tuple[UInt8[np.ndarray, "h w"], int]:
    """Grey levels of 16-bit, integer and float images as 8 bits, where 0 to `white` becomes 0 to
    255; and how many pixels lie outside. Raises ValueError for pixels that are not finite."""
    if not white:
        raise ValueError(f"the mode became {image.mode} while decoding")
    pixels_HW = np.empty((image.height, image.width), np.uint8)
    saturated = 0
    for rows, band in _bands(image):
        values = np.asarray(band).astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a pixel is NaN or infinite")
        saturated += int(np.count_nonzero((values < 0) | (values > white)))
        values = values * 255 if white == 1 else values / (white / 255)
        pixels_HW[rows] = np.clip(values, 0, 255).round().astype(np.uint8)
    return pixels_HW, saturated


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The image in bands of at most BAND_PIXELS; a small image is one band."""
    step = max(1, BAND_PIXELS // max(1, image.width))
    if step >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))
