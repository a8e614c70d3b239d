"""Responses of units and latents to drawn curves and their rivals."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

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
from .rival_stimuli import RivalResponses, rival_images, rivals_of

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
    images = curve_images(grid, subject.input_size, field.centre, BATCH)
    values_ND = read_cell(subject, site, field, images, len(grid), "showing curves", device)
    return np.ascontiguousarray(by_axis(values_ND, grid))


def unit_rivals(
    subject: Subject, site: str, field: ReceptiveField, grid: CurveGrid, device: torch.device
) -> RivalResponses:
    """Show the rivals of a grid of curves at the same cell."""
    shapes = rivals_of(grid)
    size, width = subject.input_size, grid.line_width
    images = rival_images(shapes, size, field.centre, width, BATCH)
    name = "showing rival shapes"
    return RivalResponses(
        shapes, read_cell(subject, site, field, images, len(shapes), name, device)
    )


def read_cell(
    subject: Subject,
    site: str,
    field: ReceptiveField,
    images: Iterable[Float[Tensor, "b 3 h w"]],
    count: int,
    name: str,
    device: torch.device,
) -> Float32[np.ndarray, "n d"]:
    """The site's vector at the cell of a receptive field, for each of `count` images."""
    modules = site_modules(subject, [site])
    subject.module.to(device)
    vectors = []
    with (
        exact_arithmetic(),
        torch.inference_mode(),
        recording(subject.module, modules) as forward,
    ):
        for batch in progress_bar(images, name, -(-count // BATCH)):
            acts_BHWD = as_grid(forward(subject.preprocess(batch.to(device)))[site])
            vectors.append(acts_BHWD[:, *field.cell].float().cpu())
    return np.asarray(torch.cat(vectors).numpy())


def latent_tuning(
    responses: Float32[np.ndarray, "a q e d"],
    encode: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Float32[np.ndarray, "a q e s"]:
    """Encode the site's responses: latents [A, Q, E, S]."""
    latents_NS = encoded(responses.reshape(-1, responses.shape[-1]), encode, device)
    return latents_NS.reshape(*responses.shape[:-1], -1)


def latent_rivals(
    rivals: RivalResponses, encode: Callable[[Tensor], Tensor], device: torch.device
) -> RivalResponses:
    """Encode the site's responses to rivals."""
    return replace(rivals, values_VD=encoded(rivals.values_VD, encode, device))


def encoded(
    x_ND: Float32[np.ndarray, "n d"], encode: Callable[[Tensor], Tensor], device: torch.device
) -> Float32[np.ndarray, "n s"]:
    """The latents of many vectors, 1024 at a time."""
    with exact_arithmetic(), torch.inference_mode():
        blocks = torch.split(torch.from_numpy(np.ascontiguousarray(x_ND)), LATENT_BATCH)
        latents_NS = torch.cat([encode(x.to(device)).float().cpu() for x in blocks])
    return np.asarray(latents_NS.numpy())


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
