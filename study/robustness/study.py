"""The study `robustness`: superposition of plain and robust networks, measured by dictionaries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.home import find_run

from ..core.report import write_records
from ..core.study import Study
from . import page
from .config import RobustnessConfig
from .findings import Robustness
from .inputs import RobustnessInputs, find_robustness_inputs
from .measure import measured


@final
class RobustnessStudy(Study[RobustnessConfig, RobustnessInputs, Robustness]):
    """Dictionaries of networks trained plainly and adversarially.

    The report holds networks.csv, runs.csv and effects.csv.
    """

    name = "robustness"
    config = RobustnessConfig

    def find(self, config: RobustnessConfig) -> RobustnessInputs:
        runs = list(dict.fromkeys(find_run(run, config.home) for run in config.run))
        return find_robustness_inputs(config, runs)

    def identity(self, config: RobustnessConfig, inputs: RobustnessInputs) -> Mapping[str, Any]:
        return inputs.identity()

    def title(self, config: RobustnessConfig, inputs: RobustnessInputs) -> str:
        return "Superposition of plain and robust networks"

    def label(self, config: RobustnessConfig, inputs: RobustnessInputs) -> str:
        return f"{inputs.networks[0].trained.architecture or 'networks'}-{len(inputs.runs)}-runs"

    def estimate(self, config: RobustnessConfig, inputs: RobustnessInputs) -> Mapping[str, Any]:
        passes = (2 * config.attack_steps + 8) * len(inputs.images) * len(inputs.networks)
        return {"networks": len(inputs.networks), "images": len(inputs.images), "passes": passes}

    def compute(
        self, config: RobustnessConfig, inputs: RobustnessInputs, device: torch.device
    ) -> Robustness:
        pairs = [measured(inputs, one, config.batch_size, device) for one in inputs.networks]
        return Robustness(
            [network for network, _ in pairs],
            [run for _, runs in pairs for run in runs],
            inputs.attack.norm,
            inputs.attack.epsilon,
        )

    def figures(self, findings: Robustness) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: Robustness, folder: Path) -> None:
        figures = findings.figures()
        write_records(folder / "networks.csv", figures["accuracies"])
        write_records(folder / "runs.csv", figures["dictionaries"])
        if figures["effects"]:
            write_records(folder / "effects.csv", figures["effects"])

    def page(
        self, config: RobustnessConfig, inputs: RobustnessInputs, findings: Robustness
    ) -> Mapping[str, Any]:
        return page.context(inputs, findings)
