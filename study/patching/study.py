"""The study of feature patching: latents of dictionaries against principal components."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import load_sae

from ..core.language_inputs import LanguageInputs, find_language_inputs
from ..core.report import write_csv
from ..core.study import Study
from ..measures.activation_patching import (
    Pairs,
    Patching,
    features_of,
    principal_components,
    random_basis,
)
from . import page
from .config import PatchingConfig
from .findings import (
    PCA,
    RANDOM,
    Findings,
    ability,
    answer_figures,
    curve_figures,
    curves_of,
)
from .prompts import generated_pairs

EXAMPLES = 8  # pairs of prompts shown
ASKED = 48  # pairs that show whether the model can do the task; three names make as many


@final
@dataclass(frozen=True)
class PatchingInputs:
    """Runs of one site of a language model, and pairs of prompts."""

    found: LanguageInputs
    pairs: Pairs
    swapped: Pairs
    """Pairs whose other name speaks, to see whether the model can do the task."""


@final
class PatchingStudy(Study[PatchingConfig, PatchingInputs, Findings]):
    """Patch features from counterfactual prompts into base prompts.

    The report holds curves.csv (KL and size of the edit by number of features) and needed.csv.
    Source: Cunningham et al. 2309.08600, sections 4 and 5.
    """

    name = "patching"
    version = 2
    config = PatchingConfig

    def find(self, config: PatchingConfig) -> PatchingInputs:
        runs = [find_run(run, config.home) for run in config.run]
        found = find_language_inputs(
            self.name, runs, config.home, store=config.store, subject=config.subject
        )
        given = (config.names, config.prompts)
        pairs = generated_pairs(found.subject, config.pairs, config.seed, config.change, *given)
        asked = min(config.pairs, ASKED)
        swapped = generated_pairs(found.subject, asked, config.seed, "speaker", *given)
        return PatchingInputs(found, pairs, swapped)

    def identity(self, config: PatchingConfig, inputs: PatchingInputs) -> Mapping[str, Any]:
        return inputs.found.identity()

    def remarks(self, config: PatchingConfig, inputs: PatchingInputs) -> list[str]:
        return inputs.found.remarks()

    def title(self, config: PatchingConfig, inputs: PatchingInputs) -> str:
        return f"Patching features at {inputs.found.site} of {inputs.found.subject.name}"

    def label(self, config: PatchingConfig, inputs: PatchingInputs) -> str:
        return f"{inputs.found.subject.name}-{inputs.found.site}"

    def estimate(self, config: PatchingConfig, inputs: PatchingInputs) -> Mapping[str, Any]:
        return {"pairs": len(inputs.pairs), "runs": len(inputs.found.runs)}

    def compute(
        self, config: PatchingConfig, inputs: PatchingInputs, device: torch.device
    ) -> Findings:
        found, pairs = inputs.found, inputs.pairs.to(device)
        subject, site = found.subject, found.site
        subject.module.to(device)
        kinds = {run.resolve().name: features_of(load_sae(run).to(device)) for run in found.runs}
        kinds[PCA] = principal_components(found.store, site, config.rows, device)
        kinds[RANDOM] = random_basis(found.store.width(site), config.seed, device)
        parts = pairs.part(0, config.fitted), pairs.part(config.fitted, len(pairs))
        curves = {
            name: curves_of(subject, site, parts, features, config)
            for name, features in kinds.items()
        }
        whole = Patching(subject, site, parts[1], kinds[PCA], config.positions, config.batch_size)
        whole_P = whole.kl(whole.whole_PTD).double().cpu().numpy()
        figures = {
            "subject": subject.name,
            "site": site,
            "store": found.store.name,
            "pairs": len(parts[1]),
            "fitted": len(parts[0]),
            "prompts": config.prompts,
            "change": config.change,
            "positions": config.positions,
            "able": ability(subject, inputs.swapped.to(device)),
            **answer_figures(whole, subject, parts[1]),
            "curves": {
                name: {way: curve_figures(one, whole_P, config.seed) for way, one in ways.items()}
                for name, ways in curves.items()
            },
        }
        return Findings(figures, parts[1].texts[:EXAMPLES])

    def figures(self, findings: Findings) -> dict[str, Any]:
        return findings.figures

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: Findings, folder: Path) -> None:
        curves = findings.figures["curves"]
        write_csv(
            folder / "curves.csv", ("features", "order", "changed", "kl", "size"), points(curves)
        )
        rows = (
            (name, way, part, needed, *one["interval"][part], one["edit"][part])
            for name, ways in curves.items()
            for way, one in ways.items()
            for part, needed in one["needed"].items()
        )
        names = ("features", "order", "fraction", "needed", "low", "high", "edit")
        write_csv(folder / "needed.csv", names, rows)

    def page(
        self, config: PatchingConfig, inputs: PatchingInputs, findings: Findings
    ) -> Mapping[str, Any]:
        return page.context(findings)


def points(curves: Mapping[str, Any]) -> Iterator[tuple[str, str, int, float, float]]:
    """A row a point of a curve: features, order, number changed, KL, size of the edit."""
    for name, ways in curves.items():
        for way, one in ways.items():
            for changed, (kl, size) in enumerate(zip(one["kl"], one["size"], strict=True)):
                yield name, way, changed, kl, size
