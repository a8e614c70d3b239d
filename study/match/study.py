"""The study `match`: which latent of the next layer continues each latent of this one."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from tendril.data.store.spec import short_site
from tendril.models.dictionaries.checkpoint import read_config

from ..core.report import write_csv, write_records
from ..core.stores import training_warnings
from ..core.study import Study
from ..core.trained import same_start
from . import page
from .config import MatchConfig
from .findings import Link, Matched, chains_of, direct_agreement, link_of
from .inputs import (
    MatchInputs,
    codes,
    compared_rows,
    dictionaries,
    find_match_inputs,
    labelled,
)


@final
class MatchStudy(Study[MatchConfig, MatchInputs, Matched]):
    """Match latents of successive layers. The report holds links.csv, pairs.csv and chains.csv."""

    name = "match"
    config = MatchConfig

    def find(self, config: MatchConfig) -> MatchInputs:
        inputs = find_match_inputs(config)
        if config.contexts and inputs.language:
            from .text import check_model

            check_model(config, inputs)
        return inputs

    def identity(self, config: MatchConfig, inputs: MatchInputs) -> Mapping[str, Any]:
        return inputs.identity()

    def remarks(self, config: MatchConfig, inputs: MatchInputs) -> list[str]:
        return [*_same_start(inputs), *training_warnings(inputs.runs)]

    def title(self, config: MatchConfig, inputs: MatchInputs) -> str:
        return f"Latents of {labelled([short_site(site) for site in inputs.sites])} matched"

    def label(self, config: MatchConfig, inputs: MatchInputs) -> str:
        return f"{inputs.store.name}-{inputs.sites[0]}-{inputs.sites[-1]}"

    def compute(self, config: MatchConfig, inputs: MatchInputs, device: torch.device) -> Matched:
        saes, store = dictionaries(inputs), inputs.store
        rows = compared_rows(inputs, config.rows)
        found = [
            codes(store, site, sae, rows, device)
            for site, sae in zip(inputs.sites, saes, strict=True)
        ]
        links = [
            link_of(config, (inputs.sites[i], inputs.sites[j]), (saes[i], saes[j]),
                    (found[i], found[j]))
            for i, j in pairwise(range(len(saes)))
        ]  # fmt: skip
        chains = chains_of(links)
        words: list[dict[int, str]] = [{} for _ in saes]
        costs: list[dict[str, Any]] = []
        if inputs.language:
            from .text import skipped_layers, words_of  # needs transformers

            shown = chains.latents_CL[: config.shown]
            words = [words_of(inputs, rows, z, shown[:, i]) for i, z in enumerate(found)]
            costs = skipped_layers(config, inputs, links, saes, found, device)
        return Matched(
            inputs.sites,
            [run.resolve().name for run in inputs.runs],
            [sae.latents for sae in saes],
            len(rows),
            links,
            chains,
            direct_agreement(config, links, saes, found),
            costs,
            words,
            str(store.spec["subject"].get("name", "")),
            store.name,
        )

    def figures(self, findings: Matched) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.table(figures)

    def write_tables(self, findings: Matched, folder: Path) -> None:
        write_records(folder / "links.csv", [link.record() for link in findings.links])
        pairs = (
            (link.first, link.second, i, int(j), _text(r), same)
            for link in findings.links
            for i, (j, r, same) in enumerate(
                zip(link.partner_S, link.correlation_S, _agree(link), strict=True)
            )
            if j >= 0
        )
        columns = ("first", "second", "latent", "partner", "correlation", "same_as_by_activations")
        write_csv(folder / "pairs.csv", columns, pairs)
        rows = (
            [*map(int, latents), *(f"{r:.4f}" for r in links)]
            for latents, links in zip(
                findings.chains.latents_CL, findings.chains.links_CK, strict=True
            )
        )
        names = [*findings.sites, *(f"correlation_{i + 1}" for i in range(len(findings.links)))]
        write_csv(folder / "chains.csv", names, rows)

    def page(
        self, config: MatchConfig, inputs: MatchInputs, findings: Matched
    ) -> Mapping[str, Any]:
        return page.context(findings, config.shown)


def _same_start(inputs: MatchInputs) -> list[str]:
    """A warning where successive runs have one seed, and so the same initial decoder rows."""
    trained = [read_config(run) for run in inputs.runs]
    alike = [one for one, other in pairwise(trained) if same_start(one, other)]
    if not alike or len({int(one["dictionary"]["width"]) for one in trained}) > 1:
        return []
    return [
        "Successive runs have the same seed, so their initial directions are the same random "
        "numbers, and latents of one number may be partners for that reason alone. Train runs of "
        "different sites with different --seed."
    ]


def _agree(link: Link) -> list[int | str]:
    return [""] * len(link.partner_S) if link.agree_S is None else [int(a) for a in link.agree_S]


def _text(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""
