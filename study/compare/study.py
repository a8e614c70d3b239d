"""The study `compare`: how the dictionaries of several runs relate, latent by latent."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import DICTIONARY

from ..core.report import file_digest, write_csv
from ..core.study import Study
from ..measures.matching import match
from . import page
from .config import CompareConfig
from .findings import ComparedRun, Comparison, read_run

COLUMNS = ("first", "second", "latent", "matched", "encoder", "decoder", "shared")


@final
class CompareStudy(Study[CompareConfig, Sequence[Path], Comparison]):
    """Compare runs. The report holds matches.csv: every pair of matched latents.

    Raises ConfigError where there are fewer than two runs, or their vectors differ in width.
    """

    name = "compare"
    version = 3
    config = CompareConfig

    def find(self, config: CompareConfig) -> Sequence[Path]:
        folders = [find_run(name, config.home) for name in config.run]
        if len({folder.resolve() for folder in folders}) < 2:
            raise ConfigError(
                f"--run must name two different runs or more; got {', '.join(config.run)}. "
                "`tendril data ls` lists runs."
            )
        return list(dict.fromkeys(folders))

    def identity(self, config: CompareConfig, inputs: Sequence[Path]) -> Mapping[str, Any]:
        return {"dictionaries": [[f.resolve().name, file_digest(f / DICTIONARY)] for f in inputs]}

    def title(self, config: CompareConfig, inputs: Sequence[Path]) -> str:
        return f"{len(inputs)} dictionaries compared"

    def compute(
        self, config: CompareConfig, inputs: Sequence[Path], device: torch.device
    ) -> Comparison:
        runs = [read_run(folder) for folder in inputs]
        check(runs)
        matches = {
            (i, j): match(runs[i].directions, runs[j].directions)
            for i, j in itertools.combinations(range(len(runs)), 2)
        }
        return Comparison(runs, matches)

    def figures(self, findings: Comparison) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return (
            f"Two runs share {figures['shared']:.0%} of their latents; stability "
            f"{figures['stability']:.2f}. {figures['warning'] or ''}"
        ).strip()

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.table(figures)

    def write_tables(self, findings: Comparison, folder: Path) -> None:
        rows = (
            (findings.runs[i].name, findings.runs[j].name, int(a), int(b), f"{e:.4f}", f"{d:.4f}",
             int(shared))
            for (i, j), m in findings.matches.items()
            for a, b, e, d, shared in zip(
                m.first_M, m.second_M, m.encoder_M, m.decoder_M, m.shared_M, strict=True
            )
        )  # fmt: skip
        write_csv(folder / "matches.csv", COLUMNS, rows)

    def page(
        self, config: CompareConfig, inputs: Sequence[Path], findings: Comparison
    ) -> Mapping[str, Any]:
        return page.context(findings)


def check(runs: Sequence[ComparedRun]) -> None:
    """Raise ConfigError where runs cannot be compared; note where they should hardly be."""
    widths = {run.name: run.directions.decoder_SD.shape[1] for run in runs}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} of width {width}" for name, width in widths.items())
        raise ConfigError(
            f"the latents of all runs must have one width; got {listed}. Choose runs of one site."
        )
    for field in ("site", "store"):
        values = sorted({str(run.config.get(field) or "unknown") for run in runs})
        if len(values) > 1:
            note(f"note: the runs are of different {field}s ({', '.join(values)}).")
    largest = sorted(len(run.directions) for run in runs)[-2:]
    needed = 3 * 8 * largest[0] * largest[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ConfigError(
            f"matching {largest[0]} latents with {largest[1]} needs {needed / 1e9:.0f} GB; this "
            f"machine has {memory / 1e9:.0f} GB. Compare smaller dictionaries."
        )
