"""Feature visualisation: images optimised to excite given directions at a site.

An image covers the receptive field of one cell and a margin, in lucent's parametrisation: Fourier
coefficients with decorrelated colours. Gradients flow through the part of the network that the
cell needs, with the true gradient of ReLU. Each step shifts and scales the image slightly; it
never rotates it, because orientation is part of what is shown.
Source: Olah et al., Feature Visualization, Distill 2017; lucent (github.com/greentfrapp/lucent).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from tendril.data import _torchvision  # noqa: F401  lucent imports torchvision
from tendril.data.cli import progress_bar
from tendril.models.sites.window import ReceptivePatch
from tendril.models.subjects.subject import Subject

AT_ONCE = 16
SCALES = (0.95, 1.05)
LEAST_COSINE = 0.1
RATE = 5e-2  # lucent's

Objective = Callable[[Tensor], Float[Tensor, " m"]]


@final
@dataclass(frozen=True)
class Aim:
    """The direction [D] at a site that an image should excite, and its name."""

    name: str
    direction: Float[Tensor, " d"]


@final
@dataclass(frozen=True)
class Visualised:
    """An optimised image, and the cosine and dot product of its activation with the aim."""

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    cosine: float
    dot: float


def sites_to_read(subject: Subject, site: str) -> list[str]:
    """The site, and its twin before the ReLU if the subject has one.

    Images are optimised at the twin, where a silent unit still has a gradient.
    """
    twin = f"{site}_pre_relu"
    return [site, twin] if twin in subject.sites else [site]


def visualise(
    patch: ReceptivePatch,
    site: str,
    aims: Sequence[Aim],
    *,
    device: torch.device,
    cosine: float = 1.0,
    steps: int = 256,
    margin: int = 8,
    seed: int = 0,
) -> list[Visualised]:
    """Optimise one image for each aim, in groups of 16; the same seed gives the same images.

    `patch` must read the sites of `sites_to_read`. `cosine` is the power in `toward`, `steps`
    are steps of Adam, and `margin` is the width in pixels of the border within which images are
    shifted.
    """
    climbed = next((name for name in patch.sites if name != site), site)
    found: list[Visualised] = []
    with patch.reading() as read:
        starts = range(0, len(aims), AT_ONCE)
        for start in progress_bar(starts, "images"):
            some = aims[start : start + AT_ONCE]
            direction_MD = torch.stack([aim.direction for aim in some]).to(device)

            def excited(x_MCPP: Tensor, v_MD: Tensor = direction_MD) -> Tensor:
                return toward(read(x_MCPP)[climbed], v_MD, cosine)

            image_MCPP = ascend(
                excited, len(some), patch.size, steps=steps, margin=margin, seed=seed, device=device
            )
            with torch.no_grad():
                acts_MD = read(image_MCPP)[site]
                dot_M = (acts_MD * direction_MD).sum(1)
                cosine_M = functional.cosine_similarity(acts_MD, direction_MD, dim=1)
            pixels = (255 * image_MCPP).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            found += [
                Visualised(aim.name, pixels[m], float(cosine_M[m]), float(dot_M[m]))
                for m, aim in enumerate(some)
            ]
    return found


def toward(
    acts_MD: Float[Tensor, "m d"], direction_MD: Float[Tensor, "m d"], power: float
) -> Float[Tensor, " m"]:
    """The objective <a, v> max(0.1, cos(a, v)) ** power.

    It rewards activations that are large and point along v.
    """
    dot_M = (acts_MD * direction_MD).sum(dim=1)
    cosine_M = functional.cosine_similarity(acts_MD, direction_MD, dim=1)
    return dot_M * cosine_M.clamp(min=LEAST_COSINE).pow(power)


def ascend(
    objective: Objective,
    count: int,
    size: int,
    *,
    steps: int,
    margin: int,
    seed: int,
    device: torch.device,
) -> Float[Tensor, "m 3 p p"]:
    """Optimise `count` images of `size` pixels with Adam; each raises its own entry of the
    objective.

    Only lucent's parametrisation is used. Its `render_vis` scales images smaller than 224 pixels
    up to 224, so that a cell would see only part of them.
    """
    from lucent.optvis import param

    whole = size + 2 * margin
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # lucent draws from the global generator
        parameters, _ = param.image(whole, batch=1)
        same = parameters[0].detach().to(device)  # so that an image does not depend on the others
    values = same.repeat(count, *([1] * (same.ndim - 1))).requires_grad_()
    image = fourier_image(values, whole)
    optimiser = torch.optim.Adam([values], lr=RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        seen = shifted(image(), size, margin, draw)
        (-objective(seen).sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        edge = slice(margin, margin + size)
        return image()[:, :, edge, edge].detach()


def fourier_image(values: Tensor, size: int) -> Callable[[], Tensor]:
    """A function that returns lucent's images [M, 3, P, P] of the current Fourier coefficients.

    lucent's own function draws the coefficients itself.
    """
    from lucent.optvis.param.color import to_valid_rgb
    from lucent.optvis.param.spatial import rfft2d_freqs

    frequency = torch.from_numpy(rfft2d_freqs(size, size)).to(values)
    scale = 1 / frequency.clamp(min=1 / size)

    def picture() -> Tensor:
        spectrum = torch.view_as_complex((scale[..., None] * values).contiguous())
        drawn: Tensor = torch.fft.irfftn(spectrum, s=(size, size), dim=(-2, -1), norm="ortho")
        return drawn / 4

    image: Callable[[], Tensor] = to_valid_rgb(picture, decorrelate=True)
    return image


def shifted(
    image_MCHW: Float[Tensor, "m 3 h w"], size: int, margin: int, draw: torch.Generator
) -> Float[Tensor, "m 3 p p"]:
    """Scale images by up to 5 % and cut a patch of `size` pixels near the middle."""
    low, high = SCALES
    scale = low + (high - low) * float(torch.rand((), generator=draw))
    if margin:
        whole = max(size, round(image_MCHW.shape[-1] * scale))
        image_MCHW = functional.interpolate(
            image_MCHW, size=(whole, whole), mode="bilinear", align_corners=False
        )
    spare = image_MCHW.shape[-1] - size
    middle, reach = spare // 2, min(margin // 2, spare // 2)
    y, x = (middle + int(torch.randint(-reach, reach + 1, (), generator=draw)) for _ in "yx")
    return image_MCHW[:, :, y : y + size, x : x + size]
