"""Feature visualisation: images made to excite units, latents, or blocks of a group crosscoder.

An image is a patch of the receptive field's size and a margin, in lucent's parametrisation
(Fourier coefficients, colours decorrelated). Gradients come through the part of the network
that the cell needs and nothing more, with the true gradient of ReLU. From step to step the
patch is shifted and scaled a little, never turned: what has a direction must keep it.
Source: Olah et al., Feature Visualization, Distill 2017; lucent (github.com/greentfrapp/lucent).
"""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tendril.data import _torchvision  # noqa: F401  lucent imports torchvision
from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_sae
from tendril.models.sites.window import find_window

from ..core.report import file_digest, report_of, sources_config
from ..core.vision_inputs import Sources, find_sources
from ..measures.feature_visualisation import Aim, Visualised, sites_to_read, visualise
from ..measures.tuning import exact_arithmetic
from ..missing_curves.config import VisualiseConfig
from ..page import svg as drawing
from ..page.render import render

FORMAT = 1  # raised when the same sources would give other images
AT_ONCE = 16
SCALES = (0.95, 1.05)
LEAST_COSINE = 0.1
RATE = 5e-2  # lucent's


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
        window = find_window(sources.subject, sites_to_read(sources.subject, sources.site))
        window.module.to(device)
        started = time.monotonic()
        with exact_arithmetic():
            images = visualise(
                window,
                sources.site,
                aims,
                cosine=config.cosine,
                steps=config.steps,
                margin=config.margin,
                seed=config.seed,
                device=device,
            )
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
