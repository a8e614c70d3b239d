"""Slices of images -> rows: load ahead, run the subject, keep the drawn positions."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Shaped, UInt8

from tendril.data.errors import SubjectError, UnreadableInputError
from tendril.data.inputs.images import ImageSource
from tendril.models.sites.fused import fused
from tendril.models.sites.hooks import as_grid, recording
from tendril.models.subjects.subject import Subject, site_modules

from .loop import SliceRows
from .narrow import narrowed
from .sampling import draw_by_norm, draw_uniform, on_grid

SLICES_AHEAD = 2  # slices of images that wait in memory for a GPU
GREY = 127  # replaces an image that cannot be read; its rows are invalid

Given = UInt8[np.ndarray, "size size 3"] | Float32[np.ndarray, "size size 3"]
Loaded = Given | UnreadableInputError


@dataclass(frozen=True)
class PositionRule:
    """How the cells of the first site's map are drawn."""

    rule: str  # "norm" or "uniform"
    count: int | Literal["all"]
    seed: int

    def draw(self, inputs: range, grid_BHWD: Float[torch.Tensor, "b h w d"]) -> np.ndarray:
        """The drawn cells of each input, numbered row by row: [B, count]."""
        cells = grid_BHWD.shape[1] * grid_BHWD.shape[2]
        if self.count == "all":
            return np.tile(np.arange(cells), (len(inputs), 1))
        if self.rule == "uniform":
            count = self.count
            return np.stack([draw_uniform(cells, count, self.seed, i) for i in inputs])
        norms_BHW = torch.linalg.vector_norm(grid_BHWD.float(), dim=-1)
        norms_BP = norms_BHW.flatten(1).cpu().numpy()
        return draw_by_norm(norms_BP, self.count, self.seed, inputs)


def vision_rows(
    subject: Subject,
    source: ImageSource,
    sites: Sequence[str],
    rule: PositionRule,
    *,
    device: torch.device,
    workers: int = 2,
    batch_size: int = 8,
    dtype: str = "float32",
    fuse: bool = True,
) -> Callable[[Sequence[range]], Iterator[SliceRows]]:
    """The harvesting loop's producer: takes slices of images, yields rows of every site.

    With a GPU, the next slices are loaded while it computes. On a CPU slices are loaded between
    the passes, since loading during a pass costs twice as much: every layer waits for its slowest
    thread. Rows have the 16-bit `dtype` of the store if they fit (see `narrowed`). `fuse` runs
    a network on a CPU with fused convolutions (models/sites/fused.py), packed for slices of
    `batch_size`.
    """
    subject.module.to(device)
    modules = site_modules(subject, sites)
    ahead = 0 if device.type == "cpu" else SLICES_AHEAD

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        with ExitStack() as stack:
            if fuse and slices:
                noise = probe(subject, device)
                stack.enter_context(fused(subject.module, modules, noise, batch_size))
            forward = stack.enter_context(recording(subject.module, modules))
            for inputs, images in load(source, slices, subject.input_size, workers, ahead):
                with torch.inference_mode():  # not across a yield: it would apply to the caller
                    acts = forward(subject.preprocess(to_rgb(images, device, subject.input_size)))
                    grids = {site: as_grid(acts[site]) for site in sites}
                    _check_count(grids, len(images))
                    rows, columns = gather(grids, rule.draw(inputs, grids[sites[0]]), dtype)
                yield SliceRows(
                    inputs=inputs,
                    activations=rows,
                    columns=columns,
                    names=[source.name(i) for i in inputs],
                    failures=failures_of(inputs, images),
                    saturated={i: n for i in inputs if (n := source.saturated.get(i))},
                )

    return produce


def _check_count(grids: Mapping[str, torch.Tensor], images: int) -> None:
    for site, grid_BHWD in grids.items():
        if len(grid_BHWD) != images:
            raise SubjectError(
                f"the activations at {site!r} must have one entry per image; got {len(grid_BHWD)} "
                f"for {images} images. Choose another site."
            )


def gather(
    grids: Mapping[str, Float[torch.Tensor, "b h_ w_ d_"]],
    cells_BP: Int[np.ndarray, "b p"],
    dtype: str = "float32",
) -> tuple[dict[str, Shaped[np.ndarray, "r d_"]], dict[str, Int[np.ndarray, " r"]]]:
    """The rows of every site at the drawn cells, and the columns `y` and `x`.

    Cells are numbered on the first site's grid. On the other grids, the cell that contains the
    same point of the image is taken.
    """
    first = next(iter(grids.values()))
    drawn_on = (first.shape[1], first.shape[2])
    rows = {}
    for site, grid_BHWD in grids.items():
        y_BP, x_BP = on_grid(cells_BP, drawn_on, (grid_BHWD.shape[1], grid_BHWD.shape[2]))
        b_B1 = np.arange(len(cells_BP))[:, None]
        rows[site] = narrowed(_at(grid_BHWD, b_B1, y_BP, x_BP), dtype)
    y_BP, x_BP = np.divmod(cells_BP, drawn_on[1])
    return rows, {"y": y_BP.ravel(), "x": x_BP.ravel()}


def _at(
    grid_BHWD: Float[torch.Tensor, "b h w d"],
    b_B1: Int[np.ndarray, "b 1"],
    y_BP: Int[np.ndarray, "b p"],
    x_BP: Int[np.ndarray, "b p"],
) -> Float[torch.Tensor, "r d"]:
    """The vectors at some cells. A contiguous grid is indexed by one number a row, which is faster
    than by three."""
    if not grid_BHWD.is_contiguous():
        b, y, x = (torch.from_numpy(a).to(grid_BHWD.device) for a in (b_B1, y_BP, x_BP))
        return grid_BHWD[b, y, x].flatten(0, 1)
    height, width = grid_BHWD.shape[1:3]
    places_R = torch.from_numpy(((b_B1 * height + y_BP) * width + x_BP).ravel())
    return grid_BHWD.flatten(0, 2).index_select(0, places_R.to(grid_BHWD.device))


def failures_of(inputs: range, images: Sequence[Loaded]) -> dict[int, str]:
    """The inputs that could not be read -> the reasons."""
    pairs = zip(inputs, images, strict=True)
    return {i: str(image) for i, image in pairs if isinstance(image, UnreadableInputError)}


def to_rgb(
    images: Sequence[Loaded], device: torch.device, size: int = 1
) -> Float32[torch.Tensor, "b 3 size size"]:
    """Images as RGB in 0..1 on the device, with grey for those that could not be read; tensors of
    floats as they are.

    `size` is used only if none could be read.
    """
    size = next((i.shape[0] for i in images if isinstance(i, np.ndarray)), size)
    grey = np.full((size, size, 3), GREY, np.uint8)
    filled = [i if isinstance(i, np.ndarray) else grey for i in images]
    if any(i.dtype != np.uint8 for i in filled):
        floats = [i / np.float32(255) if i.dtype == np.uint8 else i for i in filled]
        return torch.from_numpy(np.stack(floats)).to(device).permute(0, 3, 1, 2)
    pixels_BHWC = np.stack(filled)
    return torch.from_numpy(pixels_BHWC).to(device).permute(0, 3, 1, 2) / 255


def load(
    source: ImageSource, slices: Sequence[range], size: int, workers: int, ahead: int
) -> Iterator[tuple[range, list[Loaded]]]:
    """Slices of images in order, loaded by threads; up to `ahead` slices wait in memory."""
    waiting: deque[tuple[range, list[Future[Loaded]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="image-loader") as pool:
        for inputs in slices:
            waiting.append((inputs, [pool.submit(_load, source, i, size) for i in inputs]))
            if len(waiting) > ahead:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]
        while waiting:
            first, futures = waiting.popleft()
            yield first, [future.result() for future in futures]


def probe(subject: Subject, device: torch.device) -> Float[torch.Tensor, "1 ..."]:
    """An image of noise, the same for every process."""
    shape = (1, 3, subject.input_size, subject.input_size)
    noise_BCHW = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return subject.preprocess(noise_BCHW.to(device))


def _load(source: ImageSource, index: int, size: int) -> Loaded:
    try:
        return source.given(index, size)
    except UnreadableInputError as error:
        return error
