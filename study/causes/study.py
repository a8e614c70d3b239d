"""The study of causal trees: which latents of earlier sites cause a latent of a later site?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.models.subjects.subject import site_modules

from ..core.language_inputs import LanguageInputs, check_causal, language_subject_of
from ..core.language_text import TextChoice, choose_text
from ..core.report import write_csv
from ..core.stores import common_site, common_store, is_language_run
from ..core.study import Study
from ..measures.latent_causes import Place, in_order
from . import page
from .config import CausesConfig
from .findings import Tree, tree_figures, tree_of

COLUMNS = ("latent", "fall", "error", "attribution", "contexts", "edit", "control", "control_edit")


@final
@dataclass(frozen=True)
class CausesInputs:
    """Dictionaries of several sites of a language model, in the model's order, and a text."""

    found: LanguageInputs
    places: tuple[Place, ...]
    text: TextChoice


@final
class CausesStudy(Study[CausesConfig, CausesInputs, Tree]):
    """Remove latents of the site before, rank them by what a latent loses, and ask again of them.

    The report holds causes.csv, a row a latent and a cause, and nodes.csv.
    Source: Cunningham et al. 2309.08600, section 5.
    """

    name = "causes"
    config = CausesConfig

    def find(self, config: CausesConfig) -> CausesInputs:
        runs = [find_run(run, config.home) for run in config.run]
        for run in runs:
            if not is_language_run(run):
                raise ConfigError(
                    f"causes needs runs of a language model; {run.resolve().name} is of a vision "
                    "network. Choose another --run."
                )
        by_site = {common_site([run]): run for run in runs}
        if len(by_site) < len(runs):
            raise ConfigError(
                f"--run must give one run of each site; got {len(runs)} runs of "
                f"{', '.join(sorted(by_site))}. Leave all but one of each site out."
            )
        store = common_store(runs, config.home, config.store)
        subject = language_subject_of(store, "", config.subject)
        check_causal(subject, self.name)
        site_modules(subject, list(by_site))
        sites = in_order(subject, list(by_site))
        places = tuple(
            Place(by_site[site].resolve().name, site, load_sae(by_site[site])) for site in sites
        )
        if config.latent >= places[-1].sae.latents:
            raise ConfigError(
                f"--latent must be below {places[-1].sae.latents}, the number of latents of "
                f"{places[-1].run} at {sites[-1]}, the last of the sites; got {config.latent}."
            )
        found = LanguageInputs(tuple(by_site[site] for site in sites), sites[-1], store, subject)
        return CausesInputs(found, places, choose_text(found, config.inputs, config.limit))

    def identity(self, config: CausesConfig, inputs: CausesInputs) -> Mapping[str, Any]:
        return {**inputs.found.identity(), "text": inputs.text.key}

    def remarks(self, config: CausesConfig, inputs: CausesInputs) -> list[str]:
        return inputs.found.remarks()

    def title(self, config: CausesConfig, inputs: CausesInputs) -> str:
        found = inputs.found
        return f"Causes of latent {config.latent} at {found.site} of {found.subject.name}"

    def label(self, config: CausesConfig, inputs: CausesInputs) -> str:
        return f"{inputs.found.subject.name}-{inputs.found.site}-{config.latent}"

    def estimate(self, config: CausesConfig, inputs: CausesInputs) -> Mapping[str, Any]:
        sites = len(inputs.places)
        nodes = sum(config.branches**depth for depth in range(sites - 1))
        return {"contexts": inputs.text.contexts, "sites": sites, "most_nodes": nodes}

    def compute(self, config: CausesConfig, inputs: CausesInputs, device: torch.device) -> Tree:
        found = inputs.found
        found.subject.module.to(device)
        places = [Place(one.run, one.site, one.sae.to(device)) for one in inputs.places]
        text = inputs.text.read(found, config.home, device)
        return tree_of(found.subject, places, text, config, device)

    def figures(self, findings: Tree) -> dict[str, Any]:
        return tree_figures(findings)

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: Tree, folder: Path) -> None:
        figures = tree_figures(findings)
        write_csv(folder / "causes.csv", ("site", "target", *COLUMNS), _rows(figures))
        names = ("site", "latent", "most", "contexts", "together", "unexplained")
        rows = ([node[name] for name in names] for node in figures["nodes"])
        write_csv(folder / "nodes.csv", names, rows)

    def page(self, config: CausesConfig, inputs: CausesInputs, findings: Tree) -> Mapping[str, Any]:
        return page.context(config, inputs.found.subject, findings, inputs.places)


def _rows(figures: Mapping[str, Any]) -> Iterator[list[Any]]:
    for node in figures["nodes"]:
        for cause in node["causes"]:
            yield [node["site"], node["latent"], *(cause[name] for name in COLUMNS)]
