"""Slices of images -> rows [G, D]: patches of images under every element of a group."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from tendril.data import order
from tendril.data.group.dihedral import Dihedral
from tendril.data.group.warp import FADE, VERSION, Warp, finer
from tendril.data.inputs.images import ImageSource
from tendril.models.sites.fused import fused
from tendril.models.sites.hooks import as_grid, recording
from tendril.models.sites.window import Read, ReceptivePatch, device_of
from tendril.models.subjects.subject import Subject, site_modules

from .loop import SliceRows
from .narrow import narrowed
from .sampling import draw_by_norm, draw_uniform
from .vision_rows import failures_of, load, probe, to_rgb

PATCHES = {"cpu": 32, "mps": 256, "cuda": 1024}  # patches in one forward pass
TURN = 0x7042  # key of the anchors' random angles
MILLI = 1000  # the column `turn` is in thousandths of a degree


@dataclass(frozen=True)
class OrbitRule:
    """The group, and how the anchors are drawn: the cells whose patches it acts on."""

    group: Dihedral
    rule: str  # "norm" or "uniform"
    count: int | Literal["all"]
    turn: str  # "random" or "none"
    seed: int

    def identity(self, window: ReceptivePatch) -> dict[str, Any]:
        """What a spec records, besides positions and seed: all that determines the patches."""
        return {
            "rotations": self.group.rotations,
            "reflections": self.group.reflections,
            "turn": self.turn,
            "size": window.size,
            "fade": FADE,
            "colour": list(window.colour),
            "version": VERSION,
        }

    def turns(self, index: int, count: int) -> Int[np.ndarray, " a"]:
        """The angle, in thousandths of a degree, by which each anchor's patch is turned before
        the group acts. It is random, so that the orientations common in photographs are not
        built in."""
        if self.turn == "none":
            return np.zeros(count, np.int32)
        return (order.uniform(count, self.seed, index, TURN) * 360 * MILLI).astype(np.int32)


def orbit_rows(
    subject: Subject,
    source: ImageSource,
    window: ReceptivePatch,
    rule: OrbitRule,
    *,
    device: torch.device,
    workers: int = 2,
    batch_size: int = 8,
    dtype: str = "float32",
) -> Callable[[Sequence[range]], Iterator[SliceRows]]:
    """The harvesting loop's producer: takes slices of images, yields orbits of every site.

    Block g of a row is a(T_g p), the activation at the cell in the middle of the patch p under
    element g. Anchors that are drawn by norm are drawn by the norm of the first site on the whole
    image. Memory does not depend on the number of images. It depends on G only through the patches
    and rows of one image, since at most PATCHES patches are computed at a time.
    """
    for module in (subject.module, window.module):
        module.to(device)
    warp = Warp(rule.group, window.size, window.colour, device)
    cells_P2 = np.array(window.inside(subject.input_size))
    count = len(cells_P2) if rule.count == "all" else rule.count

    def produce(slices: Sequence[range]) -> Iterator[SliceRows]:
        if not slices:
            return
        with ExitStack() as stack:
            norms = _norms(subject, window, cells_P2, batch_size, stack)
            read = stack.enter_context(window.reading(PATCHES[device.type]))
            for inputs, images in load(source, slices, subject.input_size, workers, ahead=0):
                with torch.inference_mode():  # not across a yield: it would apply to the caller
                    rgb_BCHW = to_rgb(images, device, subject.input_size)
                    if rule.rule == "norm" and rule.count != "all":
                        drawn_BA = draw_by_norm(norms(rgb_BCHW), count, rule.seed, inputs)
                    else:
                        drawn_BA = np.stack(
                            [draw_uniform(len(cells_P2), count, rule.seed, i) for i in inputs]
                        )
                    yx_BA2 = cells_P2[drawn_BA]
                    turn_BA = np.stack([rule.turns(i, count) for i in inputs])
                    rows = [
                        image_orbits(rgb_CHW, yx_A2, turn_A / MILLI, window, warp, read, dtype)
                        for rgb_CHW, yx_A2, turn_A in zip(rgb_BCHW, yx_BA2, turn_BA, strict=True)
                    ]
                yield SliceRows(
                    inputs=inputs,
                    activations={s: np.concatenate([r[s] for r in rows]) for s in window.sites},
                    columns={
                        "y": yx_BA2[..., 0].ravel(),
                        "x": yx_BA2[..., 1].ravel(),
                        "turn": turn_BA.ravel(),
                    },
                    names=[source.name(i) for i in inputs],
                    failures=failures_of(inputs, images),
                    saturated={i: n for i in inputs if (n := source.saturated.get(i))},
                )

    return produce


def image_orbits(
    rgb_CHW: Float[torch.Tensor, "3 h w"],
    yx_A2: Int[np.ndarray, "a 2"],
    degrees_A: Float[np.ndarray, " a"],
    window: ReceptivePatch,
    warp: Warp,
    read: Read,
    dtype: str = "float32",
) -> dict[str, Shaped[np.ndarray, "a g d_"]]:
    """The orbits [A, G, D] of an image's anchors at every site, in the dtype of the store."""
    at_once = PATCHES[rgb_CHW.device.type]
    centres_A2 = np.array([window.centre(int(y), int(x)) for y, x in yx_A2])
    parts: dict[str, list[torch.Tensor]] = {site: [] for site in window.sites}
    fine_CHW = finer(rgb_CHW)  # once for all passes
    anchors = max(1, at_once // len(warp.group))
    for start in range(0, len(yx_A2), anchors):
        some = slice(start, start + anchors)
        orbits = warp.orbits(rgb_CHW, centres_A2[some], degrees_A[some], fine_CHW)
        patches_BCPP = orbits.flatten(0, 1)
        for few_BCPP in torch.split(patches_BCPP, at_once):
            for site, acts_BD in read(few_BCPP).items():
                parts[site].append(acts_BD)
    shape = (len(yx_A2), len(warp.group), -1)
    return {site: narrowed(torch.cat(acts).view(shape), dtype) for site, acts in parts.items()}


def _norms(
    subject: Subject,
    window: ReceptivePatch,
    cells_P2: Int[np.ndarray, "p 2"],
    batch_size: int,
    stack: ExitStack,
) -> Callable[[torch.Tensor], Float[np.ndarray, "b p"]]:
    """A function that gives the norm of the first site's vectors at some cells of whole images."""
    first = next(iter(window.sites))
    modules = site_modules(subject, [first])
    noise = probe(subject, device_of(subject.module))
    stack.enter_context(fused(subject.module, modules, noise, batch_size))
    forward = stack.enter_context(recording(subject.module, modules))

    def norms(rgb_BCHW: torch.Tensor) -> Float[np.ndarray, "b p"]:
        grid_BHWD = as_grid(forward(subject.preprocess(rgb_BCHW))[first])
        at_BPD = grid_BHWD[:, cells_P2[:, 0], cells_P2[:, 1]]
        norm_BP: np.ndarray = torch.linalg.vector_norm(at_BPD.float(), dim=-1).cpu().numpy()
        return norm_BP

    return norms
