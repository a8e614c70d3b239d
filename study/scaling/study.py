"""The study `scaling`: how dictionaries scale when features are manifolds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import DICTIONARY

from ..core.report import file_digest, write_records
from ..core.study import Study
from . import page
from .config import ScalingConfig
from .findings import Scaling
from .mixture import mixtures
from .model import lines
from .runs import read_dictionary


@final
class ScalingStudy(Study[ScalingConfig, Sequence[Path], Scaling]):
    """The allocation model, and dictionaries beside it.

    The report holds model.csv and dictionaries.csv.
    """

    name = "scaling"
    config = ScalingConfig

    def find(self, config: ScalingConfig) -> Sequence[Path]:
        return list(dict.fromkeys(find_run(name, config.home) for name in config.run))

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
            write_records(
                folder / "dictionaries.csv", [one.record() for one in findings.dictionaries]
            )

    def page(
        self, config: ScalingConfig, inputs: Sequence[Path], findings: Scaling
    ) -> Mapping[str, Any]:
        return page.context(findings)
