"""Receptive fields of a site's cells on the input image, measured with gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..subjects.subject import Subject, site_modules
from .dimensions import tokens_of
from .hooks import describe_sites, recording, sequence_lengths

PROBES = 4  # noise images, because max-pooling and ReLUs block some paths for each of them


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of the cell nearest the image centre, from which all others follow.

    `grid` is the (rows, columns) of the site's activation map, `cell` the (row, column) of that
    cell and `centre` the pixel (x, y) at the middle of its field. `size` is the field's (width,
    height) in pixels, which may exceed the image, and `stride` the distance (x, y) in pixels
    between the fields of neighbouring cells. `is_patch` is True for the patches of a vision
    transformer: attention reads the whole image, and `size` is the patch's own place in it.
    """

    grid: tuple[int, int]
    cell: tuple[int, int]
    centre: tuple[float, float]
    size: tuple[int, int]
    stride: tuple[float, float]
    is_patch: bool = False

    def pixel(self, y: float, x: float) -> tuple[float, float]:
        """The pixel (x, y) at the middle of the field of the cell in row y and column x."""
        return (
            self.centre[0] + self.stride[0] * (x - self.cell[1]),
            self.centre[1] + self.stride[1] * (y - self.cell[0]),
        )


@dataclass(frozen=True)
class _Axis:
    """One axis: first and last pixel of cell 0's field, and the stride in pixels per cell."""

    first: float
    last: float
    stride: float

    def centre(self, cell: int) -> float:
        return (self.first + self.last) / 2 + self.stride * cell

    def nearest(self, pixel: float, cells: int) -> int:
        return min(max(round((pixel - self.centre(0)) / self.stride), 0), cells - 1)


def receptive_field(subject: Subject, site: str) -> ReceptiveField:
    """Measure the receptive field of a site's cells.

    A pixel belongs to a cell's field if the cell's gradient with respect to it is non-zero on
    any of a few noise images. In InceptionV1, cell i of mixed3b is centred on pixel 8 i + 7, and
    cell i of mixed4e on pixel 16 i + 15. If a field does not fit into the image, it is measured
    on an image twice as large. If it covers even that image, or the network accepts only one
    size, fields cover the whole image, centred on equal tiles of it. The patches of a vision
    transformer have their own tile of the image. Tokens that are no map and single vectors have
    the whole image as their field. Raises UnknownSiteError.
    """
    size, middle = subject.input_size, (subject.input_size - 1) / 2
    if tokens_of(subject.module).keep == "patches" and sequence_lengths(subject, [site])[0]:
        return _patch(size, describe_sites(subject, [site])[site].grid)
    shape, axes = _probe(subject, site, size)
    if len(shape) != 4:
        grid = (shape[1] if len(shape) == 3 else 1, 1)
        return ReceptiveField(grid, (0, 0), (middle, middle), (size, size), (0.0, 0.0))
    if None in axes:
        try:
            axes = _probe(subject, site, 2 * size)[1]
        except (RuntimeError, ValueError, AssertionError):
            axes = (None, None)  # the network accepts images of one size only
    rows, columns = shape[2:]
    y, x = axes[0] or _tiling(size, rows), axes[1] or _tiling(size, columns)
    row, column = y.nearest(middle, rows), x.nearest(middle, columns)
    return ReceptiveField(
        grid=(rows, columns),
        cell=(row, column),
        centre=(x.centre(column), y.centre(row)),
        size=(round(x.last - x.first) + 1, round(y.last - y.first) + 1),
        stride=(x.stride, y.stride),
    )


def _patch(size: int, grid: tuple[int, int]) -> ReceptiveField:
    """The middle patch of an image of `size` pixels, cut into a grid of patches."""
    strides = [size / cells for cells in grid]
    cells = [(count - 1) // 2 for count in grid]
    y, x = ((cell + 0.5) * stride - 0.5 for cell, stride in zip(cells, strides, strict=True))
    return ReceptiveField(
        grid=grid,
        cell=(cells[0], cells[1]),
        centre=(x, y),
        size=(round(strides[1]), round(strides[0])),
        stride=(strides[1], strides[0]),
        is_patch=True,
    )


def _probe(
    subject: Subject, site: str, size: int
) -> tuple[Sequence[int], tuple[_Axis | None, _Axis | None]]:
    """The shape of a site's activations on an image of `size` pixels, and the fields of its cells
    along rows and columns; None if the two middle cells do not determine them."""
    generator = torch.Generator().manual_seed(0)
    device = next((p.device for p in subject.module.parameters()), torch.device("cpu"))
    seen_KHW = torch.zeros(2, size, size, dtype=torch.bool)
    shape: Sequence[int] = ()
    with (
        _leaking(subject.module),
        recording(subject.module, site_modules(subject, [site])) as forward,
        torch.backends.cudnn.flags(enabled=False),  # its fast algorithms give no exact zeros
        torch.enable_grad(),
    ):
        for _ in range(PROBES):
            image = torch.rand((1, 3, size, size), generator=generator).to(device).requires_grad_()
            acts = forward(subject.preprocess(image))[site]
            shape = acts.shape
            if len(shape) != 4:
                return shape, (None, None)
            # random weights, because the plain sum of a normalised vector is constant
            weights = torch.randn(shape[1], generator=generator).to(device)
            for k, cell in enumerate(_middle_cells(shape)):
                value = acts[0, :, *cell] @ weights
                (gradient_BCHW,) = torch.autograd.grad(value, image, retain_graph=True)
                seen_KHW[k] |= (gradient_BCHW != 0).any(1)[0].cpu()
    cells = _middle_cells(shape)
    rows = _fit([cell[0] for cell in cells], seen_KHW.any(2))
    return shape, (rows, _fit([cell[1] for cell in cells], seen_KHW.any(1)))


@contextmanager
def _leaking(module: nn.Module) -> Iterator[None]:
    """Let gradients pass ReLUs at negative inputs, so that units silent on noise are measured."""

    def leak(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output + 0.01 * inputs[0]

    handles = [m.register_forward_hook(leak) for m in module.modules() if isinstance(m, nn.ReLU)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _middle_cells(shape: Sequence[int]) -> list[tuple[int, int]]:
    """(Row, column) of two cells in the middle, diagonal neighbours."""
    rows, columns = shape[2:]
    return [(max(rows // 2 - k, 0), max(columns // 2 - k, 0)) for k in (1, 0)]


def _fit(cells: Sequence[int], seen_KL: Tensor) -> _Axis | None:
    """Fit lines through the first and last seen pixels of cells that end inside the image."""
    spans = {cell: seen.nonzero().flatten() for cell, seen in zip(cells, seen_KL, strict=True)}
    end = seen_KL.shape[1] - 1
    firsts = {c: int(span[0]) for c, span in spans.items() if len(span) and span[0] > 0}
    lasts = {c: int(span[-1]) for c, span in spans.items() if len(span) and span[-1] < end}
    known = [line for line in (firsts, lasts) if len(line) == 2]
    if not firsts or not lasts or not known:
        return None
    (a, at_a), (b, at_b) = sorted(known[0].items())
    stride = (at_b - at_a) / (b - a)
    first, last = (sum(p - stride * c for c, p in e.items()) / len(e) for e in (firsts, lasts))
    return _Axis(first, last, stride)


def _tiling(size: int, cells: int) -> _Axis:
    """Fields as wide as the image, centred on the tiles of a grid."""
    stride = size / cells
    centre = (stride - 1) / 2
    return _Axis(centre - (size - 1) / 2, centre + (size - 1) / 2, stride)
