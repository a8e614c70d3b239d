"""Maps of latents over images, and the images themselves, for the examples of a page."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64, UInt8
from PIL import Image

from tendril.data.cli import progress_bar
from tendril.data.inputs.images import ImageSource, readable
from tendril.data.store.reader import Store
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.hooks import as_grid, recording
from tendril.models.subjects.subject import Subject, site_modules

from .image_activity import morans_i

IMAGE_AT_ONCE = 2**23 - 1  # activations: arrays below 32 MiB, whose memory is used again
IMAGES = 16  # loaded, and run through the network, at a time
SMALL = 64  # pixels up to which a picture is stored without loss
QUALITY = 85

Pixels = UInt8[np.ndarray, "size size 3"]
Maps = Callable[[Int64[np.ndarray, " b"], Mapping[int, Pixels]], Float[torch.Tensor, "b p d"]]


@final
@dataclass(frozen=True)
class ExampleMaps:
    """The maps of M examples, each as text, the largest activation in it, and its Moran's I; and
    the pictures of all images shown, as files by their numbers.

    Maps are as `as_texts` writes them, empty where there is none. Moran's I is NaN where the map is
    not whole or constant.
    """

    text: Sequence[str]
    peak_M: Float32[np.ndarray, " m"]
    moran_M: Float64[np.ndarray, " m"]
    pictures: Mapping[int, bytes]


@torch.inference_mode()
def example_maps(
    source: ImageSource,
    size: int,
    dictionary: SAE,
    input_M: Int64[np.ndarray, " m"],
    latent_M: Int64[np.ndarray, " m"],
    vectors: Maps,
    cells_of: Callable[[int], Int[np.ndarray, " p"]],
    grid: tuple[int, int],
    device: torch.device,
) -> ExampleMaps:
    """The maps of the latents `latent_M` over the images `input_M`.

    Each image is loaded, and its vectors are encoded, once. `vectors` gives those of some images,
    [B, P, D], NaN where unknown; `cells_of` gives the cells of an image's P vectors, numbered row
    by row on `grid`.
    """
    text = [""] * len(input_M)
    peak_M, moran_M = np.zeros(len(input_M), np.float32), np.full(len(input_M), np.nan)
    pictures: dict[int, bytes] = {}
    by_input = np.argsort(input_M, kind="stable")
    numbers, begins = np.unique(input_M[by_input], return_index=True)
    ends = np.append(begins[1:], len(input_M))
    dictionary = dictionary.to(device)
    with (
        ThreadPoolExecutor(2) as pool,
        progress_bar(total=len(numbers), desc="pictures and maps", unit=" images") as bar,
    ):
        for start in range(0, len(numbers), IMAGES):
            some = numbers[start : start + IMAGES]
            loaded = pool.map(lambda i: readable(source, int(i), size), some)
            images = {int(i): image for i, image in zip(some, loaded, strict=True)}
            there = {i: image for i, image in images.items() if image is not None}
            if there:
                pictures |= zip(there, pool.map(picture, there.values()), strict=True)
                x_BPD = vectors(np.array(list(there)), there).to(device)
                for number, z_PS in _encoded(dictionary, list(there), x_BPD):
                    at = int(np.searchsorted(numbers, number))
                    mine = by_input[begins[at] : ends[at]]
                    chosen = torch.from_numpy(latent_M[mine]).to(z_PS.device)
                    map_MC = np.full((len(mine), grid[0] * grid[1]), np.nan, np.float32)
                    map_MC[:, cells_of(number)] = z_PS[:, chosen].T.cpu().numpy()
                    peak_M[mine] = np.nanmax(map_MC, axis=1, initial=0)
                    moran_M[mine] = morans_i(map_MC.reshape(-1, *grid))
                    for one, line in zip(mine, as_texts(map_MC, peak_M[mine]), strict=True):
                        text[one] = line
            bar.update(len(some))
    return ExampleMaps(text, peak_M, moran_M, pictures)


def _encoded(
    dictionary: SAE, numbers: Sequence[int], x_BPD: Float[torch.Tensor, "b p d"]
) -> Iterator[tuple[int, Float[torch.Tensor, "p s"]]]:
    together = max(1, IMAGE_AT_ONCE // (x_BPD.shape[1] * dictionary.latents))
    for start in range(0, len(numbers), together):
        x_PD = x_BPD[start : start + together]
        known = torch.isfinite(x_PD).all(-1, keepdim=True)
        z_BPS = dictionary.encode(torch.where(known, x_PD, 0).flatten(0, 1))
        z_BPS = z_BPS.view(*x_PD.shape[:2], -1)
        if not known.all():
            z_BPS = torch.where(known, z_BPS, torch.nan)
        yield from zip(numbers[start : start + together], z_BPS, strict=True)


LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ZERO, UNKNOWN = ".", "_"
RUN = re.compile(r"(.)\1+")


def as_texts(map_MC: Float32[np.ndarray, "m c"], peak_M: Float32[np.ndarray, " m"]) -> list[str]:
    """Maps as text: a symbol for each cell, after a number where several in a row are equal.

    An activation is a letter of LEVELS, in 52 equal steps up to the peak of its map.
    """
    scale_M1 = len(LEVELS) / np.where(peak_M > 0, peak_M, 1)[:, None]
    level_MC = np.clip(np.ceil(np.nan_to_num(map_MC) * scale_M1), 0, len(LEVELS)).astype(np.int64)
    level_MC[np.isnan(map_MC)] = len(LEVELS) + 1
    symbols = np.frombuffer(f"{ZERO}{LEVELS}{UNKNOWN}".encode(), np.uint8)[level_MC]
    return [RUN.sub(_shortened, line.tobytes().decode()) for line in symbols]


def _shortened(run: "re.Match[str]") -> str:
    return f"{len(run[0])}{run[1]}"


def picture(image: Pixels) -> bytes:
    """An image as a file: PNG if it is small, else JPEG."""
    file = io.BytesIO()
    if max(image.shape) <= SMALL:
        Image.fromarray(image).save(file, "PNG")
    else:
        Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@final
class NetworkVectors:
    """The vectors of a site's whole map, from the network, for images of `source`."""

    def __init__(
        self,
        subject: Subject,
        sites: Sequence[str],
        device: torch.device,
        source: ImageSource | None = None,
    ) -> None:
        self._subject, self._sites, self._device = subject, sites, device
        self._exact = source.exact if source else None
        subject.module.to(device)

    def __call__(
        self, numbers: Int64[np.ndarray, " b"], images: Mapping[int, Pixels]
    ) -> Float[torch.Tensor, "b p d"]:
        subject, sites = self._subject, self._sites
        stacked = np.stack([images[int(i)] for i in numbers])
        rgb_BCHW = torch.from_numpy(stacked).permute(0, 3, 1, 2).to(self._device).float() / 255
        for place, number in enumerate(numbers if self._exact else ()):
            exact = self._exact(int(number)) if self._exact else None
            if exact is not None:  # a tensor that is no picture
                rgb_BCHW[place] = torch.from_numpy(exact).permute(2, 0, 1)
        with recording(subject.module, site_modules(subject, sites)) as forward:
            acts = forward(subject.preprocess(rgb_BCHW))
            return torch.cat([as_grid(acts[s]).flatten(1, 2).float() for s in sites], dim=-1)


@final
class StoredVectors:
    """The vectors of images that a store holds; NaN for rows that are not valid."""

    def __init__(self, store: Store, sites: Sequence[str], length: int) -> None:
        self._store, self._sites, self._length = store, sites, length

    def __call__(
        self, numbers: Int64[np.ndarray, " b"], images: Mapping[int, Pixels]
    ) -> Float[torch.Tensor, "b p d"]:
        rows = (numbers[:, None] * self._length + np.arange(self._length)).ravel()
        x_ND = np.concatenate([self._store.read(site, rows) for site in self._sites], axis=1)
        return torch.from_numpy(x_ND).view(len(numbers), self._length, -1)
