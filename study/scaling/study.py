"""The study `scaling`: how dictionaries scale when features are manifolds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch

from tendril.models.dictionaries.checkpoint import DICTIONARY

from ..core.report import file_digest, write_records
from ..core.study import Study
from . import page
from .config import ScalingConfig
from .findings import Scaling
from .mixture import mixtures
from .model import lines
from .runs import read_dictionary
from .sweeps import runs_called
from .toys import curves


@final
class ScalingStudy(Study[ScalingConfig, Sequence[Path], Scaling]):
    """The allocation model, and dictionaries beside it.

    The report holds model.csv, dictionaries.csv and, of runs on one manifold, toys.csv.
    """

    name = "scaling"
    config = ScalingConfig

    def find(self, config: ScalingConfig) -> Sequence[Path]:
        found = [runs_called(name, config.home)[1] for name in config.run]
        return list(dict.fromkeys(folder for folders in found for folder in folders))

    def resolved(self, config: ScalingConfig, inputs: Sequence[Path]) -> ScalingConfig:
        names = tuple(runs_called(name, config.home)[0] for name in config.run)
        return replace(config, run=names)

    def identity(self, config: ScalingConfig, inputs: Sequence[Path]) -> Mapping[str, Any]:
        return {"dictionaries": [[f.resolve().name, file_digest(f / DICTIONARY)] for f in inputs]}

    def title(self, config: ScalingConfig, inputs: Sequence[Path]) -> str:
        return "How dictionaries scale when features are manifolds"

    def label(self, config: ScalingConfig, inputs: Sequence[Path]) -> str:
        return "model" if not inputs else f"{len(inputs)}-runs"

    def compute(
        self, config: ScalingConfig, inputs: Sequence[Path], device: torch.device
    ) -> Scaling:
        found = [read_dictionary(config, folder) for folder in inputs]
        return Scaling(
            config.alpha,
            config.shifted,
            lines(config) if config.model else [],
            found,
            mixtures(config, found),
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
                write_records(folder / "toys.csv", [curve.record() for curve in curves(toys)])
            write_records(
                folder / "dictionaries.csv", [one.record() for one in findings.dictionaries]
            )

    def page(
        self, config: ScalingConfig, inputs: Sequence[Path], findings: Scaling
    ) -> Mapping[str, Any]:
        return page.context(findings)
