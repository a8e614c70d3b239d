"""Responses of units and latents to drawn curves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from tendril.data.cli import progress_bar
from tendril.data.errors import SubjectError
from tendril.models.sites.hooks import as_grid, recording
from tendril.models.sites.receptive import ReceptiveField
from tendril.models.subjects.subject import Subject, site_modules

from .curve_stimuli import CurveGrid, curve_images

BATCH = 32
LATENT_BATCH = 1024
NOT_PARTS = ("_pre_relu", "_bottleneck")


def unit_tuning(
    subject: Subject, site: str, field: ReceptiveField, grid: CurveGrid, device: torch.device
) -> Float32[np.ndarray, "a q e d"]:
    """Show every curve of the grid to a subject and read the site's vector at one cell.

    The midpoint of each arc lies on the centre of that cell's receptive field.

    Responses come as [A, Q, E, D]: orientations, radii, styles, units.
    """
    modules = site_modules(subject, [site])
    subject.module.to(device)
    images = curve_images(grid, subject.input_size, field.centre, BATCH)
    vectors = []
    with (
        exact_arithmetic(),
        torch.inference_mode(),
        recording(subject.module, modules) as forward,
    ):
        for batch in progress_bar(
            images,
            "showing curves",
            -(-len(grid) // BATCH),
        ):
            acts_BHWD = as_grid(forward(subject.preprocess(batch.to(device)))[site])
            vectors.append(acts_BHWD[:, *field.cell].float().cpu())
    return np.ascontiguousarray(by_axis(torch.cat(vectors).numpy(), grid))


def latent_tuning(
    responses: Float32[np.ndarray, "a q e d"],
    encode: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Float32[np.ndarray, "a q e s"]:
    """Encode the site's responses: latents [A, Q, E, S]."""
    acts_ND = torch.from_numpy(responses.reshape(-1, responses.shape[-1]))
    with exact_arithmetic(), torch.inference_mode():
        blocks = torch.split(acts_ND, LATENT_BATCH)
        latents_NS = torch.cat([encode(x.to(device)).float().cpu() for x in blocks])
    return latents_NS.numpy().reshape(*responses.shape[:-1], -1)


def by_axis(values: Float[np.ndarray, "n d"], grid: CurveGrid) -> Float[np.ndarray, "a q e d"]:
    """Values in the order of the grid's curves -> [A, Q, E, D]."""
    return values.reshape(*grid.shape, -1).transpose(2, 1, 0, 3)


def site_parts(subject: Subject, site: str, device: torch.device) -> dict[str, range]:
    """Channels of a site that are those of other sites, e.g. the branches of a block.

    `SITE_x` is a part of SITE where its activations on noise are found whole among those of
    SITE; empty unless the parts make up all of it.
    """
    names = [n for n in subject.sites if n.startswith(f"{site}_") and not n.endswith(NOT_PARTS)]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((1, 3, subject.input_size, subject.input_size), generator=generator)
    subject.module.to(device)
    try:
        with (
            exact_arithmetic(),
            torch.inference_mode(),
            recording(subject.module, site_modules(subject, [site, *names])) as forward,
        ):
            acts = forward(subject.preprocess(noise.to(device)))
    except SubjectError:  # a namesake that is no part of the pass, so there is nothing to name
        return {}
    whole_BHWD = as_grid(acts[site])
    parts = {}
    for name in names:
        piece_BHWC = as_grid(acts[name])
        for start in range(whole_BHWD.shape[3] - piece_BHWC.shape[3] + 1):
            channels = range(start, start + piece_BHWC.shape[3])
            if torch.equal(whole_BHWD[..., channels.start : channels.stop], piece_BHWC):
                parts[name] = channels
                break
    return parts if sum(map(len, parts.values())) == whole_BHWD.shape[3] else {}


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Deterministic convolutions without TF32: the same bits each time."""
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False):
        yield
