"""Orbits from crops against rotating whole images; growth of time and memory with G.

Ours applies the group to a patch as large as the receptive field and runs the network on it
without padding. The yardstick is the straightforward way: for each element it rotates the whole
image about the anchor and runs the truncated network on it, in batches, to read one cell. Both
give the same vectors [A, G, D]; the result holds their relative difference.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional

from tendril.data.cli import note
from tendril.data.device import keep_freed_memory
from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import FADE, Warp, finer
from tendril.data.inputs.images import open_images
from tendril.harvest.orbit_rows import image_orbits
from tendril.harvest.vision_rows import to_rgb
from tendril.models.sites.fused import fused
from tendril.models.sites.hooks import as_grid, recording
from tendril.models.sites.window import ReceptivePatch, find_receptive_patch
from tendril.models.subjects.inception import InceptionV1, inception_sites, preprocess, unpadded
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import Subject

from .config import GroupBench
from .group_training import KINDS
from .measure import machine, paired

BATCH = 8  # whole images in a forward pass
Whole = Callable[[torch.Tensor, tuple[int, int]], np.ndarray]
READS = 5
SIZES = ((4, 16), (8, 16), (16, 16), (32, 16), (16, 32))  # rotations, anchors
PEAK = """
import importlib, json, sys
from tendril.bench.measure import peak_memory
grow = importlib.import_module(f"tendril.bench.{sys.argv[1]}").grow
print(json.dumps(grow(*json.loads(sys.argv[2])) | {"peak_mb": peak_memory()}))
"""


def measure(bench: GroupBench) -> dict[str, object]:
    """The ratio `crop_over_whole` (larger is better), and the growth of time and memory.

    Seconds and megabytes of the harvest and of training steps of both group crosscoders, for
    G = 8, 16, 32, 64 and for twice as many anchors.
    """
    subject = _subject(bench.weights)
    window = find_receptive_patch(subject, [bench.site])
    group = Dihedral(bench.rotations)
    image = to_rgb([open_images("dead-leaves", 1).load(0, 224)], torch.device("cpu"))[0]
    cells_A2 = np.array(window.inside(224)[:: 289 // bench.anchors][: bench.anchors])
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        warp = Warp(group, window.size, window.colour)
        read = stack.enter_context(window.reading(32))
        whole = stack.enter_context(_whole(subject, window, group, bench.site))
        unrotated_A = np.zeros(len(cells_A2))

        def ours() -> np.ndarray:
            return image_orbits(image, cells_A2, unrotated_A, window, warp, read)[bench.site]

        def yardstick() -> np.ndarray:
            return np.stack([whole(image, (int(y), int(x))) for y, x in cells_A2])

        difference = float(np.abs(ours() - yardstick()).max() / np.abs(yardstick()).max())
        note("orbits from crops against whole images ...")
        times = paired(ours, yardstick, bench.pairs)
    note("growth with G and with the number of anchors ...")
    growth = {f"G{2 * n} x {a}": _grown("group", bench.weights, bench.site, n, a) for n, a in SIZES}
    seconds = {name: g["seconds"] for name, g in growth.items()}
    note("growth of a training step ...")
    training = {
        kind: {f"G{2 * n} x {8 * a}": _grown("group_training", kind, n, 8 * a) for n, a in SIZES}
        for kind in KINDS
    }
    return {
        "what": "group",
        "ratios": {
            "crop_over_whole": round(times.ratio, 2),
            "time_G32_over_G8": round(seconds["G32 x 16"] / seconds["G8 x 16"], 2),
            "time_R2_over_R1": round(seconds["G32 x 32"] / seconds["G32 x 16"], 2),
        },
        "relative_difference": difference,
        "anchors_per_s": round(bench.anchors / float(np.median(times.ours)), 2),
        "growth": growth,
        "training": training,
        "elements": len(group),
        "patch": window.size,
        **machine(),
    }


def grow(weights: str, site: str, rotations: int, anchors: int) -> dict[str, float]:
    """The median time in seconds to read the orbits of some anchors, as a harvest does."""
    keep_freed_memory()
    window = find_receptive_patch(_subject(weights), [site])
    warp = Warp(Dihedral(rotations), window.size, window.colour)
    image = to_rgb([open_images("dead-leaves", 1).load(0, 224)], torch.device("cpu"))[0]
    cells_A2 = np.array(window.inside(224)[:anchors])
    with torch.inference_mode(), window.reading(32) as read:
        image_orbits(image, cells_A2[:1], np.zeros(1), window, warp, read)
        seconds = []
        for _ in range(READS):
            began = time.perf_counter()
            image_orbits(image, cells_A2, np.zeros(anchors), window, warp, read)
            seconds.append(time.perf_counter() - began)
    return {"seconds": float(np.median(seconds))}


def _grown(module: str, *arguments: str | int) -> dict[str, float]:
    """The result of a module's `grow` in a process of its own, and the peak memory there."""
    command = [sys.executable, "-c", PEAK, module, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {name: round(value, 3) for name, value in result.items()}


@contextmanager
def _whole(subject: Subject, window: ReceptivePatch, group: Dihedral, site: str) -> Iterator[Whole]:
    """The yardstick: the vectors [G, D] of an image at a cell, from rotated whole images."""
    modules = {site: subject.sites[site]}
    probe = subject.preprocess(torch.full((1, 3, 224, 224), 0.5))
    with (
        fused(subject.module, modules, probe, BATCH),
        recording(subject.module, modules) as forward,
    ):

        def vectors(image_CHW: torch.Tensor, cell: tuple[int, int]) -> Float[np.ndarray, "g d"]:
            images_GCHW = _turned(image_CHW, window.centre(*cell), window, group)
            batches = torch.split(images_GCHW, BATCH)
            acts = [as_grid(forward(subject.preprocess(part))[site]) for part in batches]
            vectors_GD: np.ndarray = torch.cat(acts)[:, cell[0], cell[1]].numpy()
            return vectors_GD

        yield vectors


def _turned(
    image_CHW: torch.Tensor, middle: tuple[float, float], window: ReceptivePatch, group: Dihedral
) -> Float[torch.Tensor, "g 3 h w"]:
    """A whole image under every element about a pixel, faded along the same circle as crops."""
    at_HW2 = np.stack(np.meshgrid(np.arange(224), np.arange(224), indexing="xy"), -1) - middle
    radius_HW = np.hypot(at_HW2[..., 0], at_HW2[..., 1]) / (window.size / 2)
    fade_HW = (1 + np.cos(np.pi * np.clip((radius_HW - FADE) / (1 - FADE), 0, 1))) / 2
    places = np.einsum("gji,yxj->gyxi", group.matrix_G22, at_HW2) + middle  # inverse: transposed
    grid = torch.from_numpy((2 * places / 223 - 1).astype(np.float32))
    turned_GCHW = functional.grid_sample(
        finer(image_CHW).expand(len(group), -1, -1, -1),
        grid,
        padding_mode="border",
        align_corners=True,
    )
    colour_C11 = torch.tensor(window.colour).view(3, 1, 1)
    return colour_C11 + (turned_GCHW - colour_C11) * torch.from_numpy(fade_HW).float()


def _subject(weights: str) -> Subject:
    if weights:
        return load_subject("inceptionv1", weights=weights)
    torch.manual_seed(0)
    network = InceptionV1().eval().requires_grad_(False)
    return Subject(
        "inceptionv1", network, preprocess, 224, inception_sites(), unpadded=unpadded(network)
    )
