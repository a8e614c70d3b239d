"""The study `scaling`: how dictionaries scale when features are manifolds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import DICTIONARY

from ..core.report import file_digest, write_records
from ..core.study import Study
from ..core.vision_inputs import VisionInputs
from . import page
from .config import ScalingConfig
from .curve_family import curve_test, find_curve_inputs
from .findings import Scaling
from .mixture import mixtures
from .model import lines
from .runs import read_dictionary
from .sweeps import runs_called
from .toys import curves as toy_curves


@final
@dataclass(frozen=True)
class Inputs:
    """Runs, and with --curves the subject and the store of the direct test."""

    runs: Sequence[Path]
    curves: tuple[VisionInputs, Store] | None


@final
class ScalingStudy(Study[ScalingConfig, Inputs, Scaling]):
    """The allocation model, and dictionaries beside it.

    The report holds model.csv, dictionaries.csv and, of runs on one manifold, toys.csv.
    """

    name = "scaling"
    version = 3  # losses of single manifolds are of raw rows
    config = ScalingConfig

    def find(self, config: ScalingConfig) -> Inputs:
        found = [runs_called(name, config.home)[1] for name in config.run]
        runs = list(dict.fromkeys(folder for folders in found for folder in folders))
        return Inputs(runs, find_curve_inputs(config, runs) if config.curves else None)

    def resolved(self, config: ScalingConfig, inputs: Inputs) -> ScalingConfig:
        names = tuple(runs_called(name, config.home)[0] for name in config.run)
        return replace(config, run=names)

    def identity(self, config: ScalingConfig, inputs: Inputs) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "dictionaries": [[f.resolve().name, file_digest(f / DICTIONARY)] for f in inputs.runs]
        }
        if inputs.curves:
            vision, store = inputs.curves
            found |= {"subject": dict(vision.subject.identity), "store": store.name}
        return found

    def title(self, config: ScalingConfig, inputs: Inputs) -> str:
        return "How dictionaries scale when features are manifolds"

    def label(self, config: ScalingConfig, inputs: Inputs) -> str:
        return "model" if not inputs.runs else f"{len(inputs.runs)}-runs"

    def compute(self, config: ScalingConfig, inputs: Inputs, device: torch.device) -> Scaling:
        curves = None
        if inputs.curves:
            curves = curve_test(config, *inputs.curves, inputs.runs, device)
        found = [read_dictionary(config, folder) for folder in inputs.runs]
        return Scaling(
            config.alpha,
            config.shifted,
            lines(config) if config.model else [],
            found,
            mixtures(config, found),
            curves,
        )

    def figures(self, findings: Scaling) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.table(figures)

    def write_tables(self, findings: Scaling, folder: Path) -> None:
        if findings.lines:
            write_records(folder / "model.csv", [line.record() for line in findings.lines])
        if findings.dictionaries:
            if toys := findings.toys():
                write_records(folder / "toys.csv", [curve.record() for curve in toy_curves(toys)])
            write_records(
                folder / "dictionaries.csv", [one.record() for one in findings.dictionaries]
            )
        if findings.series:
            write_records(folder / "series.csv", [one.record() for one in findings.series])
        if findings.curves:
            families = findings.curves.families
            write_records(folder / "curve_family.csv", [one.record() for one in families])

    def page(self, config: ScalingConfig, inputs: Inputs, findings: Scaling) -> Mapping[str, Any]:
        return page.context(findings)
