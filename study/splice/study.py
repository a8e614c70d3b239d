"""The study of splicing: what a network still knows when a site is replaced by a reconstruction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import torch

from tendril.data.cli import need
from tendril.data.errors import ConfigError
from tendril.data.home import find_run

from ..core.report import write_records
from ..core.stores import is_language_run
from ..core.study import Study
from . import page
from .attacked import attack_sentence
from .config import SpliceConfig
from .findings import Findings
from .images import find_images


@runtime_checkable
class SpliceInputs(Protocol):
    """What is spliced: `SplicedImages` of a vision network or `SplicedText` of a language model."""

    @property
    def subject_name(self) -> str: ...

    @property
    def site(self) -> str: ...

    def identity(self, config: SpliceConfig) -> dict[str, Any]: ...

    def estimate(self) -> dict[str, Any]: ...

    def compute(self, config: SpliceConfig, device: torch.device) -> Findings: ...


@final
class SpliceStudy(Study[SpliceConfig, SpliceInputs, Findings]):
    """Replace a site by what each run makes of it, by zeros and by its mean, and compare.

    The report holds splice.csv, a line a condition; of a language model also by_position.csv and
    by_class.csv.
    """

    name = "splice"
    config = SpliceConfig

    def find(self, config: SpliceConfig) -> SpliceInputs:
        runs = [find_run(run, config.home) for run in config.run]
        if any(map(is_language_run, runs)):
            need("the study splice of text", "transformers")
            from .text import find_text  # imports transformers, which takes seconds

            return find_text(config, runs)
        if config.network:
            raise ConfigError(
                "--network is for crosscoders of two language models; these are runs of images. "
                "Leave it out."
            )
        return find_images(config, runs)

    def identity(self, config: SpliceConfig, inputs: SpliceInputs) -> Mapping[str, Any]:
        return inputs.identity(config)

    def title(self, config: SpliceConfig, inputs: SpliceInputs) -> str:
        return f"Splicing {inputs.site} of {inputs.subject_name}"

    def label(self, config: SpliceConfig, inputs: SpliceInputs) -> str:
        return f"{inputs.subject_name}-{inputs.site}"

    def estimate(self, config: SpliceConfig, inputs: SpliceInputs) -> Mapping[str, Any]:
        return inputs.estimate()

    def compute(self, config: SpliceConfig, inputs: SpliceInputs, device: torch.device) -> Findings:
        return inputs.compute(config, device)

    def figures(self, findings: Findings) -> dict[str, Any]:
        return findings

    def headline(self, figures: Mapping[str, Any]) -> str:
        name, value = figures["best_run"], figures["best_loss_recovered"]
        if name is None:
            return "Ablating the site loses nothing, so there is nothing to recover."
        run = figures["runs"][name]
        more = f"KL {run['kl']:.3f}" if "kl" in run else f"top-1 {run['top1']:.3f}"
        on = "" if "kl" in run else f" on {figures['images']:,} images ({page.in_short(figures)})"
        attacked = f" {attack_sentence(figures['attack'])}" if "attack" in figures else ""
        return (
            f"{name} recovers {value:.3f} of the loss against zeros{on}; {more}, FVU "
            f"{run['fvu']:.3f}.{attacked}"
        )

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: Findings, folder: Path) -> None:
        write_records(folder / "splice.csv", page.records(findings))
        for part in page.PARTS:
            if part in findings:
                write_records(folder / f"{part}.csv", page.part_records(findings, part))

    def page(
        self, config: SpliceConfig, inputs: SpliceInputs, findings: Findings
    ) -> Mapping[str, Any]:
        return page.context(findings)
