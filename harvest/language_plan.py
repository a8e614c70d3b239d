"""A harvest of text, settled: sites of a language model over packed contexts."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch

from tendril.data.errors import ConfigError
from tendril.data.home import home_folder, store_location
from tendril.data.inputs.texts import open_text
from tendril.data.inputs.tokens import Contexts, contexts_of, tokenised
from tendril.data.store.dtypes import ITEM_BYTES
from tendril.data.store.folder import SCHEME
from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.models.sites.hooks import recording
from tendril.models.subjects.generate import is_self, written_by
from tendril.models.subjects.language import (
    LanguageSubject,
    cut_for,
    full_names,
    language_subject,
    tokens_of,
)
from tendril.models.subjects.subject import site_modules

from .config import LanguageConfig
from .language_rows import TokenRule, language_rows
from .loop import Produce
from .plan import Plan, split_names

TOKENS = "tokens"  # the folder beside store/ that keeps packed text


@final
@dataclass(frozen=True)
class LanguagePlan(Plan):
    """A planned harvest of text."""

    config: LanguageConfig
    subject: LanguageSubject
    contexts: Contexts
    inputs_origin: str

    @property
    def settings(self) -> LanguageConfig:
        return self.config

    @property
    def rule(self) -> TokenRule:
        """Which positions become rows."""
        config = self.config
        return TokenRule(config.per_input, config.skip_special, config.skip_first, config.seed)

    def producer(self, inputs_per_slice: int) -> Produce:
        return language_rows(
            self.subject,
            self.contexts,
            self.spec.sites,
            self.rule,
            device=self.device,
            dtype=self.config.dtype,
        )

    def layout(self) -> Layout:
        config, length = self.config, self.contexts.cut.length
        per_input = length if config.per_input == "all" else config.per_input
        if not 1 <= per_input <= length:
            raise ConfigError(
                f"--per-input wants `all` or a number from 1 to the {length} tokens of a context, "
                f"and got {per_input}."
            )
        sites = self.spec.sites
        with recording(self.subject.module, site_modules(self.subject, sites)) as forward:
            acts = forward(self._some_tokens(1).to(next(self.subject.module.parameters()).device))
        return plan_layout(
            inputs=len(self.contexts),
            rows_per_input=per_input,
            widths={site: acts[site].shape[-1] for site in sites},
            grids=dict.fromkeys(sites, (length, 1)),
            inputs_per_slice=config.batch_size,
            compressor=config.compressor,
            item_bytes=ITEM_BYTES[config.dtype],
            columns=("position", "token", "document"),
        )

    def seconds(self, layout: Layout) -> float:
        batch = self._some_tokens(layout.inputs_per_slice).to(self.device)
        self.subject.module.to(self.device)
        with (
            recording(self.subject.module, site_modules(self.subject, self.spec.sites)) as forward,
            torch.inference_mode(),
        ):
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                for acts in forward(batch).values():
                    acts.flatten()[0].item()  # waits for the GPU
                seconds = time.perf_counter() - began
        return seconds / len(batch) * layout.inputs

    def found(self) -> dict[str, str]:
        return {
            "inputs": self.inputs_origin,
            "subject": self.subject.origin,
            "column": self.config.column,
        }

    def _some_tokens(self, count: int) -> torch.Tensor:
        return torch.from_numpy(self.contexts.tokens_BT[:count].copy()).long()


def plan_language(config: LanguageConfig, device: torch.device) -> LanguagePlan:
    """Load the model, pack the text, and settle the identity of the harvest."""
    if config.skip_first < 0:
        raise ConfigError(
            f"--skip-first wants a whole number from 0 on, and got {config.skip_first}."
        )
    if not config.subject:
        raise ConfigError(
            "--subject is missing; give the folder of a language model, its name on the Hugging "
            "Face hub, or package:NAME."
        )
    text = None
    if not is_self(config.inputs):
        text = open_text(config.inputs, config.column, config.streaming)
    subject = language_subject(config.subject, config.compute)
    sites = full_names(subject, split_names(config.sites))
    site_modules(subject, sites)
    if subject.context and config.context > subject.context:
        raise ConfigError(
            f"--context wants at most the {subject.context} tokens that {subject.name} takes, and "
            f"got {config.context}."
        )
    cut = cut_for(subject, config.context)
    if text:
        source = tokenised(text, tokens_of(subject), str(subject.identity["tokenizer"]))
    else:
        source = written_by(subject, config.inputs, config.context, config.limit, device)
        cut = replace(cut, between=())  # every document fills a context
    contexts = contexts_of(source, cut, config.limit, _tokens_folder(config.home))
    everywhere = config.per_input == "all"
    drawn = {"rule": "uniform", "per_input": config.per_input}
    spec = StoreSpec(
        subject=subject.identity,
        inputs={
            "kind": "text",
            "contexts": len(contexts),
            "context": config.context,
            "digest": contexts.digest,
            "skip_special": config.skip_special,
            "skip_first": config.skip_first,
        },
        sites=sites,
        positions={"rule": "all"} if everywhere else drawn,
        seed=0 if everywhere else config.seed,
        dtype=config.dtype,
    )
    name = f"{subject.name}-{Path(source.origin).stem}"
    return LanguagePlan(spec, name, device, config, subject, contexts, source.origin)


def _tokens_folder(home: str) -> Path:
    """Where packed text is kept: beside store/, or here where that is at a URL."""
    elsewhere = SCHEME in store_location("", home)
    return Path(TOKENS) if elsewhere else home_folder(home) / TOKENS
