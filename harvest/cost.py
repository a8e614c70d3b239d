"""Estimates of what a harvest costs: rows, bytes and seconds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import Warp
from tendril.data.inputs.images import ImageSource, first_readable
from tendril.data.store.dtypes import ITEM_BYTES
from tendril.data.store.layout import Layout
from tendril.models.sites.hooks import recording
from tendril.models.sites.window import ReceptivePatch
from tendril.models.subjects.subject import Subject, site_modules

from .orbit_rows import PATCHES, image_orbits
from .plan import Plan
from .vision_rows import to_rgb

# Stored bytes over raw float16 bytes with zstd: of rows after a ReLU, and of a residual stream.
SPARSE = 0.3
DENSE = 0.9


@final
@dataclass(frozen=True)
class Cost:
    """Estimated rows, bytes on disk and seconds; `sentence` is for the terminal."""

    rows: int
    bytes: int
    seconds: float
    sentence: str


def estimate(plan: Plan, layout: Layout) -> Cost:
    """Estimate a harvest: bytes from the layout, seconds from a timed batch."""
    dtype, elements = plan.spec.dtype, max(layout.elements, 1)
    raw = layout.rows * elements * sum(layout.widths.values()) * ITEM_BYTES[dtype]
    compressed = DENSE if "token" in layout.columns else SPARSE
    stored = raw if layout.compressor == "none" else int(raw * compressed)
    seconds = plan.seconds(layout)
    of_group = f" of {layout.elements} elements" if layout.elements else ""
    sentence = (
        f"{layout.inputs:,} inputs x {layout.rows_per_input} positions = {layout.rows:,} "
        f"rows{of_group} of "
        + ", ".join(_site_in_words(layout, site, plan.about(site)) for site in layout.widths)
        + f"; about {stored / 1e6:,.0f} MB ({raw / 1e6:,.0f} MB raw {dtype}) and "
        f"{duration(seconds)} on {plan.device}, into {plan.location}"
    )
    return Cost(layout.rows, stored, seconds, sentence)


def _site_in_words(layout: Layout, site: str, about: str) -> str:
    """The channels and the map of a site, e.g. `480 channels on a 28 x 28 map (mixed3b)`; `about`
    says what the positions are."""
    rows, columns = layout.grids.get(site, (0, 0))
    article = "an" if rows in (11, 18) or str(rows).startswith("8") else "a"
    where = f" on {article} {rows} x {columns} map" if columns > 1 else ""
    if columns == 1 and rows > 1:
        where = f" at {rows} positions"
    return f"{layout.widths[site]} channels{where}{about} ({site})"


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them, e.g. `12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def seconds_per_image(
    subject: Subject,
    source: ImageSource,
    sites: Sequence[str],
    device: torch.device,
    images: int = 4,
) -> float:
    """Seconds of the forward pass to the last site, for one of a batch of images."""
    size = subject.input_size
    batch = to_rgb([source.load(first_readable(source, size), size)] * images, device)
    modules = site_modules(subject, sites)
    seconds = seconds_per_pass(subject.module, modules, lambda: subject.preprocess(batch), device)
    return seconds / images


def seconds_per_orbit(
    subject: Subject,
    source: ImageSource,
    window: ReceptivePatch,
    group: Dihedral,
    device: torch.device,
) -> float:
    """Seconds of one patch under the whole group."""
    size = subject.input_size
    warp = Warp(group, window.size, window.colour, device)
    image = to_rgb([source.load(first_readable(source, size), size)], device)[0]
    window.module.to(device)
    one_A2 = np.array(window.inside(size)[:1])
    with window.reading(PATCHES[device.type]) as read, torch.inference_mode():
        return _second_run(lambda: image_orbits(image, one_A2, np.zeros(1), window, warp, read))


def seconds_per_pass(
    module: nn.Module,
    modules: Mapping[str, tuple[str, ...]],
    batch: Callable[[], Tensor],
    device: torch.device,
) -> float:
    """Seconds of one forward pass over a batch that ends at the last site, with `batch()` making
    the batch included."""
    module.to(device)

    def run() -> None:
        for acts in forward(batch()).values():
            acts.flatten()[0].item()  # waits for the GPU

    with recording(module, modules) as forward, torch.inference_mode():
        return _second_run(run)


def _second_run(run: Callable[[], object]) -> float:
    """Seconds of the second of two runs; the first warms up."""
    run()
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
