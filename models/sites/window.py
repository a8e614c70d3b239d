"""The smallest image patch that determines one cell of some sites, and the network that reads it.

Reading one cell from its receptive patch gives the same vectors as reading it from a whole image,
at a fraction of the work.
"""

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

SAME = 1e-5  # tolerance against the whole image, relative to a site's largest absolute value
ALIGNED = 0.05  # largest distance between the centres of two sites' cells, in cells

# what networks raise that accept images of one size only
FAILURES = (RuntimeError, ValueError, AssertionError, IndexError, SubjectError)

Read = Callable[[Tensor], dict[str, Tensor]]
Cells = Mapping[str, tuple[int, int]]


@final
@dataclass(frozen=True)
class ReceptivePatch:
    """A square patch of `size` pixels around the centre of one cell of each site.

    `size` is the largest receptive field of the sites. The patch is placed with its first pixel
    at row `top` and column `left` of an image of `canvas` pixels, filled with the subject's mean
    `colour` elsewhere. `module` is run on that image; `cells` gives the (row, column) to read in
    each module's activation map. `fields` are the sites' receptive fields.
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
        """Place patches on the canvas. A canvas of the patch's size returns them unchanged."""
        if self.canvas == self.size:
            return patches_BCPP
        colour_C11 = patches_BCPP.new_tensor(self.colour).view(3, 1, 1)
        canvas_BCHW = colour_C11.repeat(len(patches_BCPP), 1, self.canvas, self.canvas)
        rows, columns = (slice(first, first + self.size) for first in (self.top, self.left))
        canvas_BCHW[:, :, rows, columns] = patches_BCPP
        return canvas_BCHW

    @contextmanager
    def reading(self, batch: int = 0) -> Iterator[Read]:
        """Context manager that yields a function from patches (RGB in 0..1) to the vectors [B, D]
        of every site.

        With `batch` > 0, a network on a CPU runs with fused convolutions, packed for that many
        patches at a time.
        """
        parts = {name: (name,) for names in self.sites.values() for name in names}
        probe = self.preprocess(self.place(_noise(self.size).to(device_of(self.module))))
        fusing = fused(self.module, parts, probe, batch) if batch else nullcontext()
        with fusing, recording(self.module, parts) as forward:

            def read(patches_BCPP: Tensor) -> dict[str, Tensor]:
                acts = forward(self.preprocess(self.place(patches_BCPP)))
                cells = {name: as_grid(a)[:, *self.cells[name]] for name, a in acts.items()}
                return {s: torch.cat([cells[n] for n in ns], 1) for s, ns in self.sites.items()}

            yield read

    def centre(self, y: int, x: int) -> tuple[float, float]:
        """The pixel (x, y) at the middle of the receptive field of a cell of the first site."""
        return next(iter(self.fields.values())).pixel(float(y), float(x))

    def inside(self, image: int) -> list[tuple[int, int]]:
        """The cells (y, x) of the first site whose patch lies inside an image of `image` pixels,
        in row-major order; the middle cell if there is none."""
        field, reach = next(iter(self.fields.values())), (self.size - 1) / 2
        rows, columns = field.grid
        cells = [
            (y, x)
            for y in range(rows)
            for x in range(columns)
            if all(reach <= pixel <= image - 1 - reach for pixel in self.centre(y, x))
        ]
        return cells or [field.cell]


def find_receptive_patch(subject: Subject, names: Sequence[str]) -> ReceptivePatch:
    """Find the cheapest way to read one cell of each site.

    Candidates, cheapest first: the unpadded network on the bare patch, if the subject has one; a
    crop large enough that its borders do not affect the cell; the whole image. Each is run on
    noise, and the first one whose vectors equal those of the whole image is returned.

    Raises UnknownSiteError, and ConfigError if the sites have no cells with a common centre.
    """
    sites = site_modules(subject, names)
    fields = {site: receptive_field(subject, site) for site in names}
    whole = _whole(subject, sites, fields)
    expected = _read(whole)
    for candidate in (*_bare(subject, whole), *_crops(whole)):
        if _same(candidate, expected):
            return candidate
    return whole


def device_of(module: nn.Module) -> torch.device:
    """The device of a network's parameters; the CPU if it has none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def mean_colour(subject: Subject) -> tuple[float, ...]:
    """The RGB colour in 0..1 that a subject's preprocessing maps to zero.

    Preprocessing is assumed to be linear per channel. Mid-grey if no colour maps to zero.
    """
    black, white = (
        subject.preprocess(torch.full((1, 3, 1, 1), v)).flatten().double() for v in (0.0, 1.0)
    )
    colour = -black / (white - black)
    usable = colour.numel() == 3 and bool(((colour >= 0) & (colour <= 1)).all())
    return tuple(round(float(c), 6) for c in colour) if usable else (0.5, 0.5, 0.5)


def _whole(
    subject: Subject, sites: Mapping[str, tuple[str, ...]], fields: Mapping[str, ReceptiveField]
) -> ReceptivePatch:
    """The patch in the middle of a whole image, which always works."""
    names = list(sites)
    middle = fields[names[0]].centre
    size = min(max(max(field.size) for field in fields.values()), subject.input_size)
    cells: dict[str, tuple[int, int]] = {}
    for site, field in fields.items():
        cell = _cell_at(field, middle)
        if cell is None:
            raise ConfigError(
                f"sites must have cells with a common centre; no cell of {site} is centred on "
                f"pixel {middle} of a cell of {names[0]}. Name the site with the coarsest map "
                "first, or harvest the others separately."
            )
        cells |= dict.fromkeys(sites[site], cell)
    left, top = (
        min(max(round(pixel - (size - 1) / 2), 0), subject.input_size - size) for pixel in middle
    )
    return ReceptivePatch(
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
    """The (row, column) of the cell centred on a pixel (x, y), or None."""
    place = []
    for axis, (size, cell) in enumerate(
        zip(reversed(field.grid), reversed(field.cell), strict=True)
    ):
        stride = field.stride[axis] or 1.0
        offset = (pixel[axis] - field.centre[axis]) / stride
        if abs(offset - round(offset)) > ALIGNED or not 0 <= cell + round(offset) < size:
            return None
        place.append(cell + round(offset))
    return place[1], place[0]


def _bare(subject: Subject, whole: ReceptivePatch) -> Iterator[ReceptivePatch]:
    """Patches read by the unpadded network, at the middle cell of each map.

    The canvas grows beyond the patch because a branch outside the sites may have a larger
    receptive field.
    """
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


def _crops(whole: ReceptivePatch) -> Iterator[ReceptivePatch]:
    """Crops aligned with the strides of all sites, smallest first."""
    strides = [stride for field in whole.fields.values() for stride in field.stride]
    step = round(max(strides))
    if min(strides) < 1 or any(abs(step / s - round(step / s)) > ALIGNED for s in strides):
        return
    for canvas in range(-(-whole.size // step) * step, whole.canvas, step):
        spare = canvas - whole.size
        top, left = (_aligned(first, spare, step) for first in (whole.top, whole.left))
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


def _aligned(first: int, spare: int, step: int) -> int:
    """The number nearest spare / 2 that is congruent to `first` modulo `step` and not negative."""
    least = first % step
    return least + step * max(round((spare / 2 - least) / step), 0)


@torch.inference_mode()
def _read(patch: ReceptivePatch) -> dict[str, Tensor]:
    """The sites' vectors for two patches of noise."""
    with patch.reading() as read:
        return read(_noise(patch.size, 2).to(device_of(patch.module)))


def _same(patch: ReceptivePatch, expected: Mapping[str, Tensor]) -> bool:
    """True if a candidate reads the same vectors as the whole image."""
    try:
        acts = _read(patch)
    except FAILURES:
        return False
    return all(
        acts[site].shape == vectors.shape
        and bool((acts[site] - vectors).abs().max() <= SAME * vectors.abs().max())
        for site, vectors in expected.items()
    )


def _noise(size: int, count: int = 1) -> Float[Tensor, "b 3 p p"]:
    """Images of uniform noise, identical in every process."""
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(0))
