"""How long a subject takes over images, tried on a few of them."""

import time
from collections.abc import Sequence

import numpy as np
import torch

from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import Warp
from tendril.data.inputs.images import ImageSource, first_readable
from tendril.models.sites.hooks import recording
from tendril.models.sites.window import Window
from tendril.models.subjects.subject import Subject, site_modules

from .orbit_rows import PATCHES, image_orbits
from .vision_rows import to_rgb


def seconds_per_input(
    subject: Subject,
    source: ImageSource,
    sites: Sequence[str],
    device: torch.device,
    inputs: int = 4,
) -> float:
    """Time of the truncated forward pass on a few images of the source, after a warm-up."""
    size = subject.input_size
    images = to_rgb([source.load(first_readable(source, size), size)] * inputs, device)
    subject.module.to(device)
    with (
        recording(subject.module, site_modules(subject, sites)) as forward,
        torch.inference_mode(),
    ):
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            for acts in forward(subject.preprocess(images)).values():
                acts.flatten()[0].item()  # waits for the GPU
            seconds = time.perf_counter() - began
    return seconds / inputs


def seconds_per_orbit(
    subject: Subject, source: ImageSource, window: Window, group: Dihedral, device: torch.device
) -> float:
    """Time of one anchor through the whole group, after a warm-up."""
    size = subject.input_size
    warp = Warp(group, window.size, window.colour, device)
    image = to_rgb([source.load(first_readable(source, size), size)], device)[0]
    window.module.to(device)
    one_A2 = np.array(window.inside(size)[:1])
    seconds = 0.0
    with window.reading(PATCHES[device.type]) as read, torch.inference_mode():
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            image_orbits(image, one_A2, np.zeros(1), window, warp, read)
            seconds = time.perf_counter() - began
    return seconds
