"""The study `joint`: photographs turned about the receptive fields of a family of detectors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.window import find_receptive_patch
from tendril.models.subjects.subject import Subject

from ..core.report import write_records
from ..core.study import Study
from ..core.vision_inputs import VisionInputs, find_vision_inputs, whole_images
from ..measures.curve_family import latent_family, unit_family
from ..measures.curve_search import CurveSearch
from ..measures.image_examples import strongest_rows
from ..measures.joint_orientations import Detector, Joint, combine
from ..measures.turned_patches import align, record_turned
from . import page
from .config import JointConfig


@final
class JointStudy(Study[JointConfig, VisionInputs, Joint]):
    """Record the joint tuning of a site's curve units and of some latents.

    The report holds detectors.csv.
    """

    name = "joint"
    version = 2
    config = JointConfig

    def find(self, config: JointConfig) -> VisionInputs:
        inputs = whole_images(find_vision_inputs(config, config.run, field_for=self.name))
        if inputs.store is None or inputs.images is None:
            raise ConfigError(f"joint tuning needs photographs. {inputs.no_images}".strip())
        return inputs

    def identity(self, config: JointConfig, inputs: VisionInputs) -> Mapping[str, Any]:
        return inputs.identity()

    def title(self, config: JointConfig, inputs: VisionInputs) -> str:
        return f"Joint tuning at {inputs.site} of {inputs.subject.name}"

    def label(self, config: JointConfig, inputs: VisionInputs) -> str:
        return inputs.site

    def resolved(self, config: JointConfig, inputs: VisionInputs) -> JointConfig:
        return super().resolved(replace(config, run=str(inputs.run)), inputs)

    def compute(self, config: JointConfig, inputs: VisionInputs, device: torch.device) -> Joint:
        subject, site, store, images = inputs.subject, inputs.site, inputs.store, inputs.images
        assert inputs.run is not None and store is not None and images is not None
        dictionary = load_sae(inputs.run).to(device)
        latents = list(config.latents)
        detectors = find_detectors(subject, site, dictionary, config.curves, latents, device)
        units = [d.index for d in detectors if d.kind == "unit"]

        def respond(x_ND: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
            with torch.inference_mode():
                z_NS = dictionary.encode(torch.from_numpy(x_ND).to(device))[:, latents]
            return np.concatenate([x_ND[:, units], z_NS.float().cpu().numpy()], axis=1)

        best = strongest_rows(store, site, respond, len(detectors), config.images)
        patch = find_receptive_patch(subject, [site])
        patch.module.to(device)
        angles_A = np.arange(round(360 / config.step)) * config.step
        turned = record_turned(
            patch, store, site, images, subject.input_size, best, respond, angles_A, device
        )
        curves = [align(responses_IAM, m) for m, responses_IAM in enumerate(turned)]
        return combine(detectors, curves, [len(responses) for responses in turned])

    def figures(self, findings: Joint) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return (
            f"{len(figures['detectors'])} detectors; orientations on photographs differ from those "
            f"on drawn curves by {figures['median_off']:.1f} degrees (median), "
            f"{figures['worst_off']:.1f} at worst."
        )

    def write_tables(self, findings: Joint, folder: Path) -> None:
        write_records(folder / "detectors.csv", findings.records())

    def page(self, config: JointConfig, inputs: VisionInputs, findings: Joint) -> Mapping[str, Any]:
        return page.context(findings)


def find_detectors(
    subject: Subject,
    site: str,
    dictionary: SAE,
    search: CurveSearch,
    latents: Sequence[int],
    device: torch.device,
) -> list[Detector]:
    """The curve units of a site and the latents that were named, measured on drawn curves.

    Raises ConfigError for latents that the dictionary lacks, and where there are fewer than two
    detectors.
    """
    if any(not 0 <= latent < dictionary.latents for latent in latents):
        raise ConfigError(
            f"--latents must be from 0 to {dictionary.latents - 1}; got {list(latents)}."
        )
    units = unit_family(subject, site, search, device)
    family = latent_family(units, dictionary, device)
    chosen = [(units, m) for m in units.members] + [(family, m) for m in latents]
    if len(chosen) < 2:
        raise ConfigError(
            f"joint tuning needs two curve detectors; {site} has {len(chosen)}. Lower --resultant, "
            "raise --echo, or name --latents."
        )
    return [
        Detector(one.kind, m, one.orientation(m), float(one.scores.width[m])) for one, m in chosen
    ]
