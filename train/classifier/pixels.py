"""Labelled images in memory, as bytes, and their augmentation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from tendril.data import order
from tendril.data.cli import note, progress_bar
from tendril.data.errors import ConfigError
from tendril.data.inputs.images import open_images, readable
from tendril.data.store.labels import NO_CLASS

from .config import GREY, RGB

ORDER, STEP, SAMPLE = 1, 2, 3  # keys of what is drawn
LARGEST = 512  # pixels of a side


@final
@dataclass(frozen=True)
class Pictures:
    """Images [N, C, H, W] as bytes, and their classes. `identity` is that of the source."""

    pixels_NCHW: UInt8[Tensor, "n c h w"]
    class_N: Int[Tensor, " n"]
    names: tuple[str, ...]
    identity: dict[str, object]
    origin: str

    def __len__(self) -> int:
        return len(self.class_N)

    def moments(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of the pixels in 0..1, for each channel."""
        mean, std = [], []
        for channel in range(self.pixels_NCHW.shape[1]):
            counts = torch.bincount(self.pixels_NCHW[:, channel].flatten(), minlength=256).double()
            level = torch.arange(256, dtype=torch.float64) / 255
            share = counts / counts.sum()
            mean.append(float((share * level).sum()))
            std.append(float((share * (level - mean[-1]).square()).sum().sqrt()))
        return mean, [max(value, 1e-3) for value in std]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels in 0..1 and classes of all images, in order."""
        for first in range(0, len(self), size):
            chosen = slice(first, first + size)
            yield self.pixels_NCHW[chosen].float() / 255, self.class_N[chosen]

    def sample(self, count: int) -> "Pictures":
        """`count` of the images, always the same ones. Files are often sorted by class."""
        chosen = torch.from_numpy(order.sample(len(self), count, SAMPLE))
        return replace(self, pixels_NCHW=self.pixels_NCHW[chosen], class_N=self.class_N[chosen])


def load_pictures(
    inputs: str,
    *,
    limit: int | None,
    size: int,
    channels: str,
    flag: str,
    left_out: tuple[str, ...] = (),
) -> Pictures:
    """All images of a source with their classes, but those of the classes `left_out`.

    Images are scaled and cropped to squares of `size` pixels, as in a harvest. `channels` is grey,
    rgb, or auto: grey if all images are. Raises ConfigError for images without classes, and sides
    that are too large to keep in memory.
    """
    source = open_images(inputs, limit)
    if source.labels is None:
        raise ConfigError(
            f"{flag} must have the class of each image: a column `label` of a data set, or a "
            f"subfolder for each class; {inputs} has none. Give images with classes."
        )
    if size > LARGEST:
        raise ConfigError(f"--size must be at most {LARGEST} pixels; got {size}. Give --size 32.")
    pixels_NHWC = np.zeros((len(source), size, size, RGB), np.uint8)
    wanted_N = ~source.labels.are(left_out, "--left-out")
    known_N = wanted_N & (source.labels.number_B != NO_CLASS)
    with progress_bar(total=len(source), desc=f"reading {inputs}", unit=" images") as bar:
        for index in range(len(source)):
            picture = readable(source, index, size) if known_N[index] else None
            if picture is None:
                known_N[index] = False
            else:
                pixels_NHWC[index] = picture
            bar.update()
    if lost := int((wanted_N & ~known_N).sum()):
        note(f"{lost:,} images of {inputs} are left out: unreadable or no class.")
    if not known_N.all():
        pixels_NHWC = pixels_NHWC[known_N]
    if not len(pixels_NHWC):
        raise ConfigError(f"{flag} must have readable images with classes; {inputs} has none.")
    if left_out and len(np.unique(source.labels.number_B[known_N])) < 2:
        raise ConfigError(
            f"--left-out must leave images of two classes or more of {inputs}; got --left-out "
            f"{' '.join(left_out)}. Leave out fewer classes."
        )
    grey = bool((pixels_NHWC == pixels_NHWC[..., :1]).all()) if channels == "auto" else None
    kept = GREY if grey or channels == "grey" else RGB
    pixels_NCHW = torch.from_numpy(
        np.ascontiguousarray(pixels_NHWC[..., :kept].transpose(0, 3, 1, 2))
    )
    return Pictures(
        pixels_NCHW,
        torch.from_numpy(source.labels.number_B[known_N].astype(np.int64)),
        source.labels.names,
        source.identity | {"size": size, "channels": kept},
        source.origin,
    )


def epoch_order(images: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    """The order of the images in an epoch, a pure function of seed and epoch."""
    return torch.from_numpy(order.permutation(images, seed, ORDER, epoch))


def step_generator(seed: int, step: int) -> torch.Generator:
    """What is drawn in a step: augmentation, and the random start of an attack."""
    drawn = int(order.raw(1, seed, STEP, step)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(drawn)


def augmented(
    x_BCHW: Float[Tensor, "b c h w"], shift: int, flip: bool, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Images shifted by up to `shift` pixels, each by its own, and half of them mirrored."""
    count, _, height, width = x_BCHW.shape
    if flip:
        turned = torch.rand(count, generator=generator) < 0.5
        x_BCHW = torch.where(turned.view(-1, 1, 1, 1), x_BCHW.flip(3), x_BCHW)
    if shift:
        moved_B2 = torch.randint(2 * shift + 1, (count, 2), generator=generator)
        padded = functional.pad(x_BCHW, (shift,) * 4)
        rows_BH = moved_B2[:, :1] + torch.arange(height)
        columns_BW = moved_B2[:, 1:] + torch.arange(width)
        image_B11 = torch.arange(count).view(-1, 1, 1)
        found = padded.permute(0, 2, 3, 1)[image_B11, rows_BH[:, :, None], columns_BW[:, None, :]]
        x_BCHW = found.permute(0, 3, 1, 2)
    return x_BCHW
