"""What a harvest will cost: rows, bytes and seconds, by a try of its slowest step."""

import time
from typing import Any

import numpy as np
import torch

from data.images import first_readable
from data.layout import Layout
from data.rows import ITEM_BYTES
from data.warp import Warp
from models.hooks import recording
from models.subjects.subject import site_modules

from .orbits import PATCHES, image_orbits
from .plan import Plan, orbit_rule
from .vision import to_rgb

COMPRESSED = 0.3  # of raw float16, about what zstd leaves of rows after a ReLU


def estimate(plan: Plan, layout: Layout) -> dict[str, Any]:
    """Rows, bytes and seconds that a harvest will take, with a sentence for the terminal."""
    elements = max(layout.elements, 1)
    raw = layout.rows * elements * sum(layout.widths.values()) * ITEM_BYTES[plan.config.dtype]
    stored = raw if layout.compressor == "none" else int(raw * COMPRESSED)
    pace = seconds_per_orbit(plan) * layout.rows_per_input if plan.window else 0.0
    seconds = layout.inputs * (seconds_per_input(plan) + pace)
    of_group = f" of {layout.elements} elements" if plan.window else ""
    sentence = (
        f"{layout.inputs:,} inputs x {layout.rows_per_input} positions = {layout.rows:,} "
        f"rows{of_group} of "
        + ", ".join(f"{site} ({width})" for site, width in layout.widths.items())
        + f"; about {stored / 1e6:,.0f} MB ({raw / 1e6:,.0f} MB raw {plan.config.dtype}) and "
        f"{_duration(seconds)} on {plan.device}, into {plan.location}"
    )
    return {
        "rows": layout.rows,
        "bytes": stored,
        "seconds": round(seconds, 1),
        "sentence": sentence,
    }


def seconds_per_input(plan: Plan, inputs: int = 4) -> float:
    """Time of the truncated forward pass on a few images of the source, after a warm-up."""
    size = plan.subject.input_size
    first = first_readable(plan.source, size)
    images = to_rgb([plan.source.load(first, size)] * inputs, plan.device)
    plan.subject.module.to(plan.device)
    with (
        recording(plan.subject.module, site_modules(plan.subject, plan.spec.sites)) as forward,
        torch.inference_mode(),
    ):
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            for acts in forward(plan.subject.preprocess(images)).values():
                acts.flatten()[0].item()  # waits for the GPU
            seconds = time.perf_counter() - began
    return seconds / inputs


def seconds_per_orbit(plan: Plan) -> float:
    """Time of one anchor through the whole group, after a warm-up."""
    assert plan.window is not None, "asked for where there is a group"
    rule, size = orbit_rule(plan.config), plan.subject.input_size
    warp = Warp(rule.group, plan.window.size, plan.window.colour, plan.device)
    image = to_rgb([plan.source.load(first_readable(plan.source, size), size)], plan.device)[0]
    plan.window.module.to(plan.device)
    one_A2 = np.array(plan.window.inside(size)[:1])
    seconds = 0.0
    with plan.window.reading(PATCHES[plan.device.type]) as read, torch.inference_mode():
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            image_orbits(image, one_A2, np.zeros(1), plan.window, warp, read)
            seconds = time.perf_counter() - began
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
