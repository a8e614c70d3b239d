"""The smallest part of an image that a cell of some sites needs, and the network that reads it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tendril.data.errors import ConfigError, SubjectError

from ..subjects.subject import Subject, site_modules
from .fused import fused
from .hooks import as_grid, recording
from .receptive import ReceptiveField, receptive_field

SAME = 1e-5  # of a site's largest value: what a window may differ by from the whole image
ALIGNED = 0.05  # of a cell: how far the centres of two sites' cells may lie apart

# what networks raise that are made for images of one size
FAILURES = (RuntimeError, ValueError, AssertionError, IndexError, SubjectError)

Read = Callable[[Tensor], dict[str, Tensor]]
Cells = Mapping[str, tuple[int, int]]


@final
@dataclass(frozen=True)
class Window:
    """A patch of `size` pixels, about the pixel that the cell read is centred on.

    It is as large as the sites' largest receptive field, and lies with its first pixel in row
    `top` and column `left` of an image of `canvas` pixels, which has the subject's mean
    `colour` elsewhere. `module` computes that image; `cells` says in which row and column of
    the map of each module the cell is. `fields` are the sites' receptive fields.
    """

    module: nn.Module
    size: int
    canvas: int
    top: int
    left: int
    cells: Cells
    sites: Mapping[str, tuple[str, ...]]
    fields: Mapping[str, ReceptiveField]
    preprocess: Callable[[Tensor], Tensor]
    colour: tuple[float, ...]

    def place(self, patches_BCPP: Float[Tensor, "b 3 p p"]) -> Float[Tensor, "b 3 c c"]:
        """Patches on their canvas; they themselves where nothing lies beside them."""
        if self.canvas == self.size:
            return patches_BCPP
        colour_C11 = patches_BCPP.new_tensor(self.colour).view(3, 1, 1)
        canvas_BCHW = colour_C11.repeat(len(patches_BCPP), 1, self.canvas, self.canvas)
        rows, columns = (slice(at, at + self.size) for at in (self.top, self.left))
        canvas_BCHW[:, :, rows, columns] = patches_BCPP
        return canvas_BCHW

    @contextmanager
    def reading(self, batch: int = 0) -> Iterator[Read]:
        """Within the body, a function from patches (RGB in 0..1) to every site's vectors [B, D].

        A network on a CPU runs with fused convolutions, packed for `batch` patches at a time
        (0: as it is).
        """
        parts = {name: (name,) for names in self.sites.values() for name in names}
        probe = self.preprocess(self.place(_noise(self.size).to(device_of(self.module))))
        packed = fused(self.module, parts, probe, batch) if batch else nullcontext()
        with packed, recording(self.module, parts) as forward:

            def read(patches_BCPP: Tensor) -> dict[str, Tensor]:
                acts = forward(self.preprocess(self.place(patches_BCPP)))
                at = {name: as_grid(a)[:, *self.cells[name]] for name, a in acts.items()}
                return {s: torch.cat([at[n] for n in names], 1) for s, names in self.sites.items()}

            yield read

    def centre(self, y: int, x: int) -> tuple[float, float]:
        """The pixel (x, y) of an image that a cell of the first site is centred on."""
        return next(iter(self.fields.values())).pixel(float(y), float(x))

    def inside(self, image: int) -> list[tuple[int, int]]:
        """The cells (y, x) of the first site whose patch lies in an image of so many pixels,
        row by row; the one in the middle where none does."""
        field, reach = next(iter(self.fields.values())), (self.size - 1) / 2
        rows, columns = field.grid
        whole = [
            (y, x)
            for y in range(rows)
            for x in range(columns)
            if all(reach <= at <= image - 1 - reach for at in self.centre(y, x))
        ]
        return whole or [field.cell]


def find_window(subject: Subject, names: Sequence[str]) -> Window:
    """The window that is least work: the subject's network without padding on the patch alone,
    where it has one, else a crop whose border the cell does not see, else the whole image.

    Each is tried on noise against the whole image, and taken where it gives the same vectors.
    Raises UnknownSiteError, and ConfigError where the sites' cells have other centres.
    """
    sites = site_modules(subject, names)
    fields = {site: receptive_field(subject, site) for site in names}
    whole = _whole(subject, sites, fields)
    wanted = _read(whole)
    for make in (*_bare(subject, whole), *_crops(whole)):
        if _same(make, wanted):
            return make
    return whole


def device_of(module: nn.Module) -> torch.device:
    """Where a network is."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def mean_colour(subject: Subject) -> tuple[float, ...]:
    """The RGB that a subject's preprocessing turns into zeros, where it is linear a channel and
    takes some colour there; else grey."""
    black, white = (
        subject.preprocess(torch.full((1, 3, 1, 1), v)).flatten().double() for v in (0.0, 1.0)
    )
    colour = -black / (white - black)
    usable = colour.numel() == 3 and bool(((colour >= 0) & (colour <= 1)).all())
    return tuple(round(float(c), 6) for c in colour) if usable else (0.5, 0.5, 0.5)


def _whole(
    subject: Subject, sites: Mapping[str, tuple[str, ...]], fields: Mapping[str, ReceptiveField]
) -> Window:
    """The patch in the middle of a whole image."""
    names = list(sites)
    middle = fields[names[0]].centre
    size = min(max(max(field.size) for field in fields.values()), subject.input_size)
    cells: dict[str, tuple[int, int]] = {}
    for site, field in fields.items():
        cell = _cell_at(field, middle)
        if cell is None:
            raise ConfigError(
                f"no cell of {site} is centred on the pixel {middle} of a cell of {names[0]}; name "
                "the site of the coarsest map first, or harvest the others by themselves."
            )
        cells |= dict.fromkeys(sites[site], cell)
    left, top = (
        min(max(round(at - (size - 1) / 2), 0), subject.input_size - size) for at in middle
    )
    return Window(
        module=subject.module,
        size=size,
        canvas=subject.input_size,
        top=top,
        left=left,
        cells=cells,
        sites=sites,
        fields=fields,
        preprocess=subject.preprocess,
        colour=mean_colour(subject),
    )


def _cell_at(field: ReceptiveField, pixel: tuple[float, float]) -> tuple[int, int] | None:
    at = []
    for axis, (size, cell) in enumerate(
        zip(reversed(field.grid), reversed(field.cell), strict=True)
    ):
        stride = field.stride[axis] or 1.0
        moved = (pixel[axis] - field.centre[axis]) / stride
        if abs(moved - round(moved)) > ALIGNED or not 0 <= cell + round(moved) < size:
            return None
        at.append(cell + round(moved))
    return at[1], at[0]


def _bare(subject: Subject, whole: Window) -> Iterator[Window]:
    """The patch, or little more, through the network without padding, where each map has its
    cell in the middle. More where a branch that no site is of sees further than they do."""
    if subject.unpadded is None:
        return
    parts = {name: (name,) for name in whole.cells}
    step = round(max(max(field.stride) for field in whole.fields.values()))
    for canvas in range(whole.size, whole.canvas, 2 * max(step, 1)):
        image = subject.preprocess(_noise(canvas).to(device_of(subject.unpadded)))
        try:
            with torch.inference_mode(), recording(subject.unpadded, parts) as forward:
                maps = {name: acts.shape[-2:] for name, acts in forward(image).items()}
        except FAILURES:
            continue
        yield replace(
            whole,
            module=subject.unpadded,
            canvas=canvas,
            top=(canvas - whole.size) // 2,
            left=(canvas - whole.size) // 2,
            cells={name: (rows // 2, columns // 2) for name, (rows, columns) in maps.items()},
        )


def _crops(whole: Window) -> Iterator[Window]:
    """Crops in step with the strides of all sites, from the patch's size on."""
    strides = [stride for field in whole.fields.values() for stride in field.stride]
    step = round(max(strides))
    if min(strides) < 1 or any(abs(step / s - round(step / s)) > ALIGNED for s in strides):
        return
    for canvas in range(-(-whole.size // step) * step, whole.canvas, step):
        spare = canvas - whole.size
        top, left = (_in_step(at, spare, step) for at in (whole.top, whole.left))
        if max(top, left) > spare:
            continue
        cells: dict[str, tuple[int, int]] = {}
        for site, names in whole.sites.items():
            x_stride, y_stride = whole.fields[site].stride
            y, x = whole.cells[names[0]]
            y, x = (
                y - round((whole.top - top) / y_stride),
                x - round((whole.left - left) / x_stride),
            )
            cells |= dict.fromkeys(names, (y, x))
        if min(min(cell) for cell in cells.values()) >= 0:
            yield replace(whole, canvas=canvas, top=top, left=left, cells=cells)


def _in_step(at: int, spare: int, step: int) -> int:
    """A place like `at`, modulo the step, nearest the middle of what is to spare."""
    first = at % step
    return first + step * max(round((spare / 2 - first) / step), 0)


@torch.inference_mode()
def _read(window: Window) -> dict[str, Tensor]:
    with window.reading() as read:
        return read(_noise(window.size, 2).to(device_of(window.module)))


def _same(window: Window, wanted: Mapping[str, Tensor]) -> bool:
    try:
        got = _read(window)
    except FAILURES:
        return False
    return all(
        got[site].shape == acts.shape
        and bool((got[site] - acts).abs().max() <= SAME * acts.abs().max())
        for site, acts in wanted.items()
    )


def _noise(size: int, count: int = 1) -> Float[Tensor, "b 3 p p"]:
    """Images of noise, the same for every process."""
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(0))
