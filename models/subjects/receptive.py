"""Where on the image a cell of a site looks, found by probing with gradients."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..hooks import as_grid, recording
from .subject import Subject, site_modules

PROBES = 6  # noise images; maxima and ReLUs hide some paths in each


@dataclass(frozen=True)
class ReceptiveField:
    """What the cell in the middle of a site's map sees, and so what every cell sees.

    `cell` is (row, column), `centre` the pixel (x, y) its field is centred on, `size` its
    width and height in pixels, `stride` the pixels from one cell to the next.
    """

    grid: tuple[int, int]
    cell: tuple[int, int]
    centre: tuple[float, float]
    size: tuple[int, int]
    stride: tuple[float, float]

    def pixel(self, y: float, x: float) -> tuple[float, float]:
        """The pixel (x, y) that the field of the cell in row y, column x is centred on."""
        return (
            self.centre[0] + self.stride[0] * (x - self.cell[1]),
            self.centre[1] + self.stride[1] * (y - self.cell[0]),
        )


def receptive_field(subject: Subject, site: str, *, seed: int = 0) -> ReceptiveField:
    """Probe the receptive field of the middle cell of a site.

    Its support is where the gradient of the summed activation with regard to the image is not
    zero for any of a few noise images; its centre is the middle of the support. On InceptionV1
    cell i of mixed3b is centred on pixel 8 i + 7 (and not on 8 i + 4). A site that sees the
    whole image (tokens, a pooled vector) is centred on the image. Raises UnknownSiteError.
    """
    gradient_HW, grid = _probe(subject, site, seed)
    support = gradient_HW > 0
    rows, columns = support.any(1).nonzero().flatten(), support.any(0).nonzero().flatten()
    size = subject.input_size
    if len(rows) == 0:
        rows = columns = torch.arange(size)
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))
    return ReceptiveField(
        grid=grid,
        cell=((grid[0] - 1) // 2, (grid[1] - 1) // 2),
        centre=((left + right) / 2, (top + bottom) / 2),
        size=(right - left + 1, bottom - top + 1),
        stride=(size / grid[1], size / grid[0]),
    )


def _probe(subject: Subject, site: str, seed: int) -> tuple[Float[Tensor, "h w"], tuple[int, int]]:
    """Sum of |gradient| over noise images and colours, and the site's grid."""
    generator = torch.Generator().manual_seed(seed)
    size = subject.input_size
    device = next((p.device for p in subject.module.parameters()), torch.device("cpu"))
    total_HW = torch.zeros(size, size)
    grid = (1, 1)
    with (
        recording(subject.module, site_modules(subject, [site])) as forward,
        torch.enable_grad(),
    ):
        for _ in range(PROBES):
            noise = torch.rand((1, 3, size, size), generator=generator).to(device)
            noise.requires_grad_()
            acts_BHWD = as_grid(forward(subject.preprocess(noise))[site])
            grid = (acts_BHWD.shape[1], acts_BHWD.shape[2])
            cell = acts_BHWD[0, (grid[0] - 1) // 2, (grid[1] - 1) // 2]
            (gradient_BCHW,) = torch.autograd.grad(cell.sum(), noise)
            total_HW += gradient_BCHW.abs().sum((0, 1)).cpu()
    return total_HW, grid
