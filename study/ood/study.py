"""The study `ood`: images unlike those of training, told by the latents that are active."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch

from tendril.data.home import find_run
from tendril.data.inputs.images import ImageSource
from tendril.models.dictionaries.checkpoint import load_sae, read_figures

from ..core.report import write_records
from ..core.study import Study
from . import page
from .config import OodConfig
from .findings import INSIDE, LATENTS, Outside, Picture
from .inputs import OodInputs, find_ood_inputs, warn_of_few
from .score import Detectors, all_scores

SHOWN = 8  # pictures of each set


@final
class OodStudy(Study[OodConfig, OodInputs, Outside]):
    """Class activation profiles beside four baselines and two controls.

    The report holds ood.csv, a line a detector and set.
    """

    name = "ood"
    config = OodConfig

    def find(self, config: OodConfig) -> OodInputs:
        return find_ood_inputs(config, [find_run(run, config.home) for run in config.run])

    def identity(self, config: OodConfig, inputs: OodInputs) -> Mapping[str, Any]:
        return inputs.identity()

    def title(self, config: OodConfig, inputs: OodInputs) -> str:
        return f"Out of distribution: {inputs.site} of {inputs.subject.name}"

    def label(self, config: OodConfig, inputs: OodInputs) -> str:
        return f"{inputs.subject.name}-{inputs.site}"

    def estimate(self, config: OodConfig, inputs: OodInputs) -> Mapping[str, Any]:
        sets = (inputs.fit, inputs.inside, *inputs.outside.values())
        return {"images": sum(map(len, sets))}

    def compute(self, config: OodConfig, inputs: OodInputs, device: torch.device) -> Outside:
        dictionaries = [load_sae(run) for run in inputs.runs]
        on = [max(1, round(float(read_figures(run).get("l0") or 1))) for run in inputs.runs]
        detectors = Detectors(config, inputs.subject, inputs.site, dictionaries, on, device)
        detectors.fit(inputs.fit)
        inside, outside = all_scores(detectors, inputs.inside, inputs.outside)
        size = inputs.subject.input_size
        pictures = {INSIDE: strongest(inputs.inside, inside[LATENTS][0], size, last=True)}
        for name, images in inputs.outside.items():
            pictures[name] = strongest(images, outside[name][LATENTS][0], size, last=False)
        return Outside(
            inputs.subject.name,
            inputs.site,
            [run.resolve().name for run in inputs.runs],
            detectors.fitted,
            detectors.classes,
            inside,
            outside,
            warn_of_few(detectors.fitted, detectors.classes),
            detectors.unreadable,
            pictures,
        )

    def figures(self, findings: Outside) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: Outside, folder: Any) -> None:
        write_records(folder / "ood.csv", findings.records())

    def page(self, config: OodConfig, inputs: OodInputs, findings: Outside) -> Mapping[str, Any]:
        return page.context(config, inputs, findings)


def strongest(images: ImageSource, score_N: np.ndarray, size: int, *, last: bool) -> list[Picture]:
    """The images with the highest (`last`) or lowest scores. Nothing where some are unreadable,
    since scores then are not numbered as the images are."""
    if len(score_N) != len(images):
        return []
    ranked = np.argsort(-score_N if last else score_N, kind="stable")[:SHOWN].tolist()
    return [Picture(images.name(i), float(score_N[i]), images.load(i, size)) for i in ranked]
