"""The study of ablated latents: what a language model predicts otherwise without one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.models.dictionaries.checkpoint import load_sae
from tendril.models.dictionaries.sae import SAE

from ..core.language_inputs import LanguageInputs, find_language_inputs
from ..core.language_text import TextChoice, choose_text
from ..core.report import write_csv
from ..core.study import Study
from . import page
from .config import AblateConfig
from .findings import Findings, ablated, strongest


@final
@dataclass(frozen=True)
class AblateInputs:
    """A run of a language model and its dictionary, and the text to ablate latents on."""

    found: LanguageInputs
    dictionary: SAE
    text: TextChoice


@final
class AblateStudy(Study[AblateConfig, AblateInputs, Findings]):
    """Remove latents, each by itself, and compare predictions where it is active.

    The report holds latents.csv and tokens.csv.
    """

    name = "ablate"
    config = AblateConfig

    def find(self, config: AblateConfig) -> AblateInputs:
        run = find_run(config.run, config.home)
        found = find_language_inputs(
            self.name, [run], config.home, store=config.store, subject=config.subject
        )
        dictionary = load_sae(run)
        check_latents(config.latent, dictionary)
        return AblateInputs(found, dictionary, choose_text(found, config.inputs, config.limit))

    def identity(self, config: AblateConfig, inputs: AblateInputs) -> Mapping[str, Any]:
        return {**inputs.found.identity(), "text": inputs.text.key}

    def remarks(self, config: AblateConfig, inputs: AblateInputs) -> list[str]:
        return inputs.found.remarks()

    def title(self, config: AblateConfig, inputs: AblateInputs) -> str:
        return f"Ablating latents at {inputs.found.site} of {inputs.found.subject.name}"

    def label(self, config: AblateConfig, inputs: AblateInputs) -> str:
        return f"{inputs.found.subject.name}-{inputs.found.site}"

    def estimate(self, config: AblateConfig, inputs: AblateInputs) -> Mapping[str, Any]:
        return {"contexts": inputs.text.contexts, "latents": len(config.latent)}

    def compute(self, config: AblateConfig, inputs: AblateInputs, device: torch.device) -> Findings:
        found, dictionary = inputs.found, inputs.dictionary.to(device)
        found.subject.module.to(device)
        text = inputs.text.read(found, config.home, device)
        latents = {}
        for latent in dict.fromkeys(config.latent):
            one = ablated(
                found.subject, found.site, dictionary, latent, text, config.batch_size, device
            )
            latents[str(latent)] = one.figures(found.subject, config.tokens)
        return {
            "run": found.runs[0].resolve().name,
            "subject": found.subject.name,
            "site": found.site,
            "text": text.source,
            "contexts": len(text.tokens_BT),
            **strongest(latents),
            "latents": latents,
        }

    def figures(self, findings: Findings) -> dict[str, Any]:
        return findings

    def headline(self, figures: Mapping[str, Any]) -> str:
        latent, every = figures["strongest"], len(figures["latents"])
        if latent is None:
            return "No latent is active in this text."
        one = figures["latents"][str(latent)]
        best = f"Latent {latent}" if every == 1 else f"Of {every} latents {latent} matters most"
        return (
            f"{best}: where it is active, removing it gives KL {one['kl']:.4f} and cross-entropy "
            f"{one['loss']:+.4f} nats."
        )

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.terminal_table(figures)

    def write_tables(self, findings: Findings, folder: Path) -> None:
        latents = findings["latents"]
        names = ("positions", "value", "kl", "loss")
        rows = ([latent, *(one[name] for name in names)] for latent, one in latents.items())
        write_csv(folder / "latents.csv", ("latent", *names), rows)
        write_csv(folder / "tokens.csv", ("latent", "direction", "token", "change"), moved(latents))

    def page(
        self, config: AblateConfig, inputs: AblateInputs, findings: Findings
    ) -> Mapping[str, Any]:
        return page.context(findings)


def moved(latents: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, float]]:
    """A row a token that falls or rises: latent, direction, token, change of log-probability."""
    for latent, one in latents.items():
        for direction in ("falls", "rises"):
            for token in one[direction]:
                yield latent, direction, token["text"], token["change"]


def check_latents(latents: Sequence[int], dictionary: SAE) -> None:
    """Raise ConfigError for a latent that the dictionary does not have."""
    for latent in latents:
        if not 0 <= latent < dictionary.latents:
            raise ConfigError(
                f"--latent must be from 0 to {dictionary.latents - 1}, the latents of this run; "
                f"got {latent}."
            )
