"""Feature visualisation: images made to excite units, latents, or blocks of a group crosscoder.

An image is a patch of the receptive field's size and a margin, in lucent's parametrisation
(Fourier coefficients, colours decorrelated). Gradients come through the part of the network
that the cell needs and nothing more, with the true gradient of ReLU. From step to step the
patch is shifted and scaled a little, never turned: what has a direction must keep it.
Source: Olah et al., Feature Visualization, Distill 2017; lucent (github.com/greentfrapp/lucent).
"""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from tendril.data import _torchvision  # noqa: F401  lucent imports torchvision
from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_sae
from tendril.models.sites.window import Window, find_window
from tendril.models.subjects.subject import Subject

from ..core.report import file_digest, report_of, sources_config
from ..core.vision_inputs import Sources, find_sources
from ..measures.tuning import exact_arithmetic
from ..missing_curves.config import VisualiseConfig
from ..page import svg as drawing
from ..page.render import render

FORMAT = 1  # raised when the same sources would give other images
AT_ONCE = 16
SCALES = (0.95, 1.05)
LEAST_COSINE = 0.1
RATE = 5e-2  # lucent's


@dataclass(frozen=True)
class Aim:
    """What an image is made for: a direction [D] at the site, under a name."""

    name: str
    direction: Float[Tensor, " d"]


@dataclass(frozen=True)
class Visualised:
    """An image, and what the site makes of it: the cosine with the aim, and the dot product."""

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]
    cosine: float
    dot: float


def study_visualise(config: VisualiseConfig) -> dict[str, Any]:
    """Make the images of some units and latents of a site, and a page of them.

    Raises children of TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    sources = find_sources(sources_config(config, config.run, config.site))
    made = {
        "format": FORMAT,
        "subject": dict(sources.subject.identity),
        "site": sources.site,
        "run": file_digest(sources.run / DICTIONARY) if sources.run else None,
        **{
            name: getattr(config, name)
            for name in ("units", "latents", "cosine", "steps", "margin", "seed")
        },
    }
    report = report_of(config.home, config.name or f"visualise-{sources.site}", made)
    figures = None if config.overwrite else report.figures()
    reused = figures is not None
    if figures is None:
        aims = find_aims(config, sources)
        window = find_window(sources.subject, sites_of(sources.subject, sources.site))
        window.module.to(device)
        started = time.monotonic()
        with exact_arithmetic():
            images = visualise(window, sources.site, aims, config, device)
        each = (time.monotonic() - started) / len(images)
        figures = visualise_figures(images, each, window.size)
        context = page_context(images, each, window.size, config, sources)
        report.write(render(Path(__file__).parent, context), figures)
    seconds = round(time.monotonic() - began, 2)
    return {"report": str(report.page), **figures, "seconds": seconds, "reused": reused}


def find_aims(config: VisualiseConfig, sources: Sources) -> list[Aim]:
    """Units as the basis of the site, latents as their decoder rows: of a dictionary of orbits
    one for each element of the group, the image that block g of the latent asks for."""
    group = sources.store.group if sources.store else None
    W_SD: Tensor | None = None
    if sources.run is not None:
        W_SD = load_sae(sources.run).W_dec.detach().float()
    elif config.latents:
        raise ConfigError('--latents are those of a run, and --run "" names none; name one.')
    blocks = len(group) if group else 1
    width = unit_width(sources) if W_SD is None else W_SD.shape[1] // blocks
    _within("units", config.units, width)
    aims = [Aim(f"unit {unit}", torch.eye(width)[unit]) for unit in config.units]
    if W_SD is not None:
        _within("latents", config.latents, len(W_SD))
        for latent in config.latents:
            rows = W_SD[latent].view(blocks, width)
            aims += [
                Aim(f"latent {latent}" + (f", element {g}" if group else ""), row)
                for g, row in enumerate(rows)
            ]
    return aims


def unit_width(sources: Sources) -> int:
    """How many units a site has."""
    from tendril.models.sites.hooks import describe_sites

    return describe_sites(sources.subject, [sources.site])[sources.site].width


def _within(name: str, numbers: Sequence[int], count: int) -> None:
    if any(not 0 <= number < count for number in numbers):
        raise ConfigError(f"--{name} are from 0 to {count - 1}, and not {list(numbers)}.")


def sites_of(subject: Subject, site: str) -> list[str]:
    """The site, and its twin before the ReLU where it has one: images climb there, where a unit
    that is silent still has a gradient."""
    twin = f"{site}_pre_relu"
    return [site, twin] if twin in subject.sites else [site]


def visualise(
    window: Window,
    site: str,
    aims: Sequence[Aim],
    config: VisualiseConfig,
    device: torch.device,
) -> list[Visualised]:
    """The image of each aim, some at a time; the same for a seed."""
    climb = next((name for name in window.sites if name != site), site)
    found: list[Visualised] = []
    with window.reading() as read:
        starts = range(0, len(aims), AT_ONCE)
        bar = tqdm(starts, "images", mininterval=0.5 if sys.stderr.isatty() else 20)
        for start in bar:
            some = aims[start : start + AT_ONCE]
            direction_MD = torch.stack([aim.direction for aim in some]).to(device)

            def excited(x_MCPP: Tensor, v_MD: Tensor = direction_MD) -> Tensor:
                return toward(read(x_MCPP)[climb], v_MD, config.cosine)

            image_MCPP = ascend(excited, len(some), window.size, config, device)
            with torch.no_grad():
                acts_MD = read(image_MCPP)[site]
                dot_M = (acts_MD * direction_MD).sum(1)
                cosine_M = functional.cosine_similarity(acts_MD, direction_MD, dim=1)
            pixels = (255 * image_MCPP).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            for m, aim in enumerate(some):
                told = float(cosine_M[m]), float(dot_M[m])
                found.append(Visualised(aim.name, pixels[m], *told))
    return found


def toward(
    acts_MD: Float[Tensor, "m d"], direction_MD: Float[Tensor, "m d"], power: float
) -> Float[Tensor, " m"]:
    """<a, v> max(.1, cos(a, v)) ** power: large, and in the direction, not merely large."""
    dot_M = (acts_MD * direction_MD).sum(dim=1)
    cosine_M = functional.cosine_similarity(acts_MD, direction_MD, dim=1)
    return dot_M * cosine_M.clamp(min=LEAST_COSINE).pow(power)


def ascend(
    objective: Callable[[Tensor], Float[Tensor, " m"]],
    count: int,
    size: int,
    config: VisualiseConfig,
    device: torch.device,
) -> Float[Tensor, "m 3 p p"]:
    """`count` images of `size` pixels, each raising its own entry of the objective by Adam.

    lucent's `render_vis` scales whatever is smaller than 224 pixels to 224, so that a cell
    would see a part of the image alone; its parametrisation is what is used of it.
    """
    from lucent.optvis import param

    whole = size + 2 * config.margin
    draw = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # lucent draws from the global generator
        parameters, _ = param.image(whole, batch=1)
        same = parameters[0].detach().to(device)  # every image starts alike, in any company
    values = same.repeat(count, *([1] * (same.ndim - 1))).requires_grad_()
    _, image = lent(values, whole)
    optimiser = torch.optim.Adam([values], lr=RATE)
    for _ in range(config.steps):
        optimiser.zero_grad()
        patch = shifted(image(), size, config.margin, draw)
        (-objective(patch).sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        edge = slice(config.margin, config.margin + size)
        return image()[:, :, edge, edge].detach()


def lent(values: Tensor, size: int) -> tuple[Tensor, Callable[[], Tensor]]:
    """lucent's image of given Fourier coefficients: its own closure draws them itself."""
    from lucent.optvis.param.color import to_valid_rgb
    from lucent.optvis.param.spatial import rfft2d_freqs

    frequency = torch.from_numpy(rfft2d_freqs(size, size)).to(values)
    scale = 1 / frequency.clamp(min=1 / size)

    def picture() -> Tensor:
        spectrum = torch.view_as_complex((scale[..., None] * values).contiguous())
        drawn: Tensor = torch.fft.irfftn(spectrum, s=(size, size), dim=(-2, -1), norm="ortho")
        return drawn / 4

    image: Callable[[], Tensor] = to_valid_rgb(picture, decorrelate=True)
    return values, image


def shifted(
    image_MCHW: Float[Tensor, "m 3 h w"], size: int, margin: int, draw: torch.Generator
) -> Float[Tensor, "m 3 p p"]:
    """The image a little larger or smaller, and a patch of `size` pixels near its middle."""
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


def visualise_figures(
    images: Sequence[Visualised], seconds_each: float, size: int
) -> dict[str, Any]:
    """The figures of the command's result."""
    return {
        "images": len(images),
        "pixels": size,
        "seconds_an_image": round(seconds_each, 2),
        "made": [
            {"of": one.name, "cosine": round(one.cosine, 3), "dot": round(one.dot, 2)}
            for one in images
        ],
    }


def page_context(
    images: Sequence[Visualised],
    seconds_each: float,
    size: int,
    config: VisualiseConfig,
    sources: Sources,
) -> dict[str, Any]:
    """What the template shows."""
    words = ["tendril", "study", "visualise", "--run", sources.run.name if sources.run else ""]
    words += ["--site", sources.site]
    for flag, numbers in (("--units", config.units), ("--latents", config.latents)):
        words += [flag, *map(str, numbers)] if numbers else []
    words += ["--steps", str(config.steps), "--seed", str(config.seed)]
    return {
        "title": f"What excites {sources.site} of {sources.subject.name}",
        "size": size,
        "steps": config.steps,
        "seconds": f"{seconds_each:.1f}",
        "cosine": f"{config.cosine:g}",
        "images": [
            {
                "name": one.name,
                "url": drawing.data_url(one.pixels, "PNG"),
                "cosine": f"{one.cosine:.2f}",
                "dot": f"{one.dot:.4g}",
            }
            for one in images
        ],
        "command": shlex.join(words),
    }
