"""The study `evidence`: which curve latents are missing curve detectors, by five criteria."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import read_config
from tendril.models.subjects.subject import site_modules

from ..core.image_labels import image_labels
from ..core.report import file_digest, write_records
from ..core.study import Study
from ..core.vision_inputs import VisionInputs, find_vision_inputs, whole_images
from ..measures.curve_family import unit_family
from ..measures.gap_chance import copies_a_unit
from . import page
from .config import EvidenceConfig
from .examine import DOWNSTREAM, candidates_of, downstream_of, measure
from .findings import Evidence, Limits
from .together import each_run


@final
class EvidenceStudy(Study[EvidenceConfig, Sequence[VisionInputs], Evidence]):
    """Examine the curve latents of several runs by the five criteria.

    The report holds evidence.csv and together.csv.
    """

    name = "evidence"
    config = EvidenceConfig

    def find(self, config: EvidenceConfig) -> Sequence[VisionInputs]:
        runs = [find_run(run, config.home) for run in config.run]
        found = [
            whole_images(find_vision_inputs(config, str(run), field_for=self.name)) for run in runs
        ]
        first = found[0]
        for one in found:
            if (one.site, dict(one.subject.identity)) != (first.site, dict(first.subject.identity)):
                raise ConfigError(
                    f"--run must name runs on one site of one subject; got {one.site} of "
                    f"{one.subject.name} beside {first.site} of {first.subject.name}."
                )
        if first.store is None or first.images is None:
            raise ConfigError(f"evidence needs photographs. {first.no_images}".strip())
        if len({read_config(one.run).get("seed") for one in found if one.run}) == 1:
            note("the runs have one seed, so whether latents come back in others is not examined.")
        if config.labels:
            image_labels(Path(config.labels), first.images)
        if watched := config.downstream or DOWNSTREAM.get(first.subject.name, ""):
            site_modules(first.subject, [watched])
        return found

    def identity(self, config: EvidenceConfig, inputs: Sequence[VisionInputs]) -> Mapping[str, Any]:
        labels = file_digest(Path(config.labels)) if config.labels else None
        return {"runs": [one.identity() for one in inputs], "labels": labels}

    def title(self, config: EvidenceConfig, inputs: Sequence[VisionInputs]) -> str:
        return f"Evidence for missing curve detectors at {self.label(config, inputs)}"

    def label(self, config: EvidenceConfig, inputs: Sequence[VisionInputs]) -> str:
        return inputs[0].site

    def compute(
        self, config: EvidenceConfig, inputs: Sequence[VisionInputs], device: torch.device
    ) -> Evidence:
        first = inputs[0]
        units = unit_family(first.subject, first.site, config.curves, device)
        measured = [measure(one, units, device) for one in inputs]
        watched = downstream_of(config, first, device)
        candidates = [
            one
            for index in range(len(inputs))
            for one in candidates_of(config, inputs[index], units, measured, index, watched, device)
        ]
        new = [one for one in candidates if not one.copies]
        return Evidence(
            subject=first.subject.name,
            site=first.site,
            downstream=watched.site if watched else "",
            runs=[one.run.name for one in measured],
            curve_units=len(units.members),
            new_latents=[len(one.rows) - sum(copies_a_unit(one.rows)) for one in measured],
            limits=Limits(
                config.apart,
                config.curves.thresholds.rival,
                config.off,
                config.recurs,
                config.level,
            ),
            alike=config.alike,
            directions=config.directions,
            candidates=[*new, *(one for one in candidates if one.copies)],
            together=each_run(config, inputs, measured, watched, device),
            labelled=bool(config.labels),
        )

    def figures(self, findings: Evidence) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return (
            f"{figures['missing_detectors']} of {figures['candidates']} candidates at "
            f"{figures['site']} meet all five criteria of a missing curve detector."
        )

    def write_tables(self, findings: Evidence, folder: Path) -> None:
        if records := [one.record(findings.limits) for one in findings.candidates]:
            write_records(folder / "evidence.csv", records)
        if findings.together:
            write_records(folder / "together.csv", [one.record() for one in findings.together])

    def page(
        self, config: EvidenceConfig, inputs: Sequence[VisionInputs], findings: Evidence
    ) -> Mapping[str, Any]:
        return page.context(findings)
