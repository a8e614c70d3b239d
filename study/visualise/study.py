"""The study `visualise`: images optimised to excite units and latents."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.models.sites.hooks import describe_sites
from tendril.models.sites.window import find_receptive_patch

from ..core.report import write_records
from ..core.study import Study
from ..core.vision_inputs import VisionInputs, find_vision_inputs
from ..measures.feature_visualisation import Aim, sites_to_read, visualise
from ..measures.tuning import exact_arithmetic
from . import page
from .config import VisualiseConfig
from .findings import Images


@final
class VisualiseStudy(Study[VisualiseConfig, VisionInputs, Images]):
    """Make images of units and latents of a site; their figures are in images.csv."""

    name = "visualise"
    version = 2
    config = VisualiseConfig

    def find(self, config: VisualiseConfig) -> VisionInputs:
        inputs = find_vision_inputs(
            config, config.run, config.site, images=False, field_for=self.name
        )
        if config.latents and inputs.run is None:
            raise ConfigError(
                '--latents must be those of a run; got --run "". Name a run, or pass --units.'
            )
        return inputs

    def identity(self, config: VisualiseConfig, inputs: VisionInputs) -> Mapping[str, Any]:
        names = ("subject", "site", "run", "dictionary")
        return {name: inputs.identity()[name] for name in names}

    def title(self, config: VisualiseConfig, inputs: VisionInputs) -> str:
        return f"Feature visualisation at {inputs.site} of {inputs.subject.name}"

    def label(self, config: VisualiseConfig, inputs: VisionInputs) -> str:
        return inputs.site

    def resolved(self, config: VisualiseConfig, inputs: VisionInputs) -> VisualiseConfig:
        if inputs.run:
            return super().resolved(replace(config, run=str(inputs.run)), inputs)
        return replace(config, run="", site=inputs.site)

    def compute(
        self, config: VisualiseConfig, inputs: VisionInputs, device: torch.device
    ) -> Images:
        aims = find_aims(inputs, config.units, config.latents)
        patch = find_receptive_patch(inputs.subject, sites_to_read(inputs.subject, inputs.site))
        patch.module.to(device)
        began = time.monotonic()
        with exact_arithmetic():
            images = visualise(
                patch,
                inputs.site,
                aims,
                cosine=config.cosine,
                steps=config.steps,
                margin=config.margin,
                seed=config.seed,
                device=device,
            )
        return Images(images, patch.size, (time.monotonic() - began) / len(images))

    def figures(self, findings: Images) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        images = "1 image" if figures["images"] == 1 else f"{figures['images']} images"
        return (
            f"{images} of {figures['pixels']} pixels; median cosine with the direction "
            f"{figures['median_cosine']:.2f}."
        )

    def write_tables(self, findings: Images, folder: Path) -> None:
        write_records(folder / "images.csv", findings.figures()["visualised"])

    def page(
        self, config: VisualiseConfig, inputs: VisionInputs, findings: Images
    ) -> Mapping[str, Any]:
        return page.context(config, findings)


def find_aims(inputs: VisionInputs, units: Sequence[int], latents: Sequence[int]) -> list[Aim]:
    """The directions of units, which are axes of the site, and of latents, which are decoder rows.

    A row of a group crosscoder holds one block [D] for each element of the group, and each block
    is an aim. Raises ConfigError for numbers beyond those of the site or the dictionary.
    """
    width = describe_sites(inputs.subject, [inputs.site])[inputs.site].width
    _check_numbers("units", units, width)
    aims = [Aim(f"unit {unit}", torch.eye(width)[unit]) for unit in units]
    if inputs.run is None:
        return aims
    W_SD: Tensor = load_sae(inputs.run).W_dec.detach().float()
    _check_numbers("latents", latents, len(W_SD))
    for latent in latents:
        blocks_GD = W_SD[latent].view(-1, width)
        for g, row in enumerate(blocks_GD):
            element = f", element {g}" if len(blocks_GD) > 1 else ""
            aims.append(Aim(f"latent {latent}{element}", row))
    return aims


def _check_numbers(name: str, numbers: Sequence[int], count: int) -> None:
    if any(not 0 <= number < count for number in numbers):
        raise ConfigError(f"--{name} must be from 0 to {count - 1}; got {list(numbers)}.")
