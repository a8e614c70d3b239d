"""The study `parts`: which latents of a crosscoder belong to one layer or network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_sae, read_config

from ..core.report import file_digest, write_csv
from ..core.study import Study
from . import page
from .config import PartsConfig
from .findings import (
    PartFindings,
    cosines,
    norm_fractions,
    owners,
    part_scales,
    short_names,
)


@final
@dataclass(frozen=True)
class PartInputs:
    """The crosscoder, and the width of each of its parts."""

    run: Path
    trained: Mapping[str, Any]
    blocks: dict[str, int]


@final
class PartsStudy(Study[PartsConfig, PartInputs, PartFindings]):
    """Measure how latents of a crosscoder are spread over its parts; the table is latents.csv."""

    name = "parts"
    config = PartsConfig

    def find(self, config: PartsConfig) -> PartInputs:
        run = find_run(config.run, config.home)
        trained = read_config(run)
        blocks: dict[str, int] = trained.get("sites") or {}
        if trained.get("group") or len(blocks) < 2:
            raise ConfigError(
                f"--run must be a crosscoder of several sites or networks; {run.name} is of "
                f"{trained['site']} alone. Train one with `tendril train crosscoder --sites A B`."
            )
        return PartInputs(run, trained, blocks)

    def identity(self, config: PartsConfig, inputs: PartInputs) -> Mapping[str, Any]:
        return {
            "run": inputs.run.resolve().name,
            "dictionary": file_digest(inputs.run / DICTIONARY),
        }

    def title(self, config: PartsConfig, inputs: PartInputs) -> str:
        return f"Parts of {inputs.run.resolve().name}"

    def label(self, config: PartsConfig, inputs: PartInputs) -> str:
        return inputs.run.resolve().name

    def compute(
        self, config: PartsConfig, inputs: PartInputs, device: torch.device
    ) -> PartFindings:
        blocks = inputs.blocks
        W_dec = load_sae(inputs.run).plain().W_dec.detach() * part_scales(inputs.trained, blocks)
        fractions_SP = norm_fractions(W_dec, list(blocks.values()))
        return PartFindings(
            inputs.run.resolve().name,
            short_names(list(blocks)),
            fractions_SP,
            owners(fractions_SP, config.own),
            cosines(W_dec, blocks),
        )

    def figures(self, findings: PartFindings) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        own = ", ".join(f"{count} of {name} alone" for name, count in figures["own"].items())
        return f"{figures['shared']} of {figures['latents']} latents shared; {own}."

    def write_tables(self, findings: PartFindings, folder: Path) -> None:
        rows = (
            [i, findings.owner(i), f"{findings.cosine_S[i]:.6f}", *(f"{v:.6f}" for v in row_P)]
            for i, row_P in enumerate(findings.fractions_SP)
        )
        write_csv(folder / "latents.csv", ["latent", "own", "cosine", *findings.names], rows)

    def page(
        self, config: PartsConfig, inputs: PartInputs, findings: PartFindings
    ) -> Mapping[str, Any]:
        return page.context(findings, config.own, config.bins)
