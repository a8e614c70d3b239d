"""Automatic interpretation: a model writes a sentence about each latent, and is then tested on how
well that sentence predicts where the latent is active.

Source: Paulo, Mallen, Juang and Belrose, Automatically Interpreting Millions of Features in Large
Language Models (2410.13928); Cunningham et al. (2309.08600).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from tendril.data import order
from tendril.data.cli import note
from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import find_run, home_folder
from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import load_frequency, load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.subjects.language import language_subject

from ..core.config import dropped_identity
from ..core.language_inputs import tokenizer_of_store
from ..core.report import write_records
from ..core.stores import (
    StoredText,
    dictionary_digests,
    rows_of_run,
    store_of_run,
    text_of,
    text_remarks,
    trained_sites,
    training_warnings,
    without_dropped,
)
from ..core.study import Study
from ..core.token_text import readable
from ..measures.text_examples import examples_of, firing_of
from . import page
from .asking import Asker, Model, local_model
from .config import LEAST_TESTED, InterpretConfig
from .endpoint import endpoint_model
from .findings import Interpretation, InterpretFindings
from .questions import Questions, cost_sentence, estimate, interpret
from .redact import NAME

ANSWERS = "answers"  # the folder beside reports/ where answers are kept


@final
@dataclass(frozen=True)
class InterpretInputs:
    """A run, the text of its store, the latents to interpret, and the model that does."""

    run: Path
    dictionary: SAE
    store: Store
    rows: Store | PairedStores
    text: StoredText
    sites: tuple[str, ...]
    latents: tuple[int, ...]
    model: Model


@final
@dataclass(frozen=True)
class Plan:
    """What is to be asked: `latents` with their examples, of whom, and what it costs."""

    questions: Questions
    asker: Asker
    latents: Sequence[Interpretation]
    too_rare: Sequence[int]
    cost: Mapping[str, Any]


@final
class InterpretStudy(Study[InterpretConfig, InterpretInputs, InterpretFindings]):
    """Explain and score latents of a language model's dictionary.

    The report holds latents.csv, and judgements.csv with every answer of the judge. Where some
    latents got no answer the report says which; the same command asks for those again. Raises
    EndpointError where none got one.
    """

    name = "interpret"
    version = 3
    config = InterpretConfig

    def find(self, config: InterpretConfig) -> InterpretInputs:
        run = find_run(config.run, config.home)
        dictionary = load_sae(run)
        store = store_of_run(run, config.home, config.store)
        rows = rows_of_run(run, store, config.home)
        sites = trained_sites(run, rows, dictionary.width)
        text = without_dropped(text_of(store), rows, sites, read_config(run))
        latents = tuple(choose_latents(config, run))
        model = model_of(config)
        return InterpretInputs(run, dictionary, store, rows, text, sites, latents, model)

    def identity(self, config: InterpretConfig, inputs: InterpretInputs) -> Mapping[str, Any]:
        return {
            "dictionary": dictionary_digests([inputs.run]),
            "store": inputs.rows.name,
            "model": inputs.model.name,
            "latents": list(inputs.latents),
            **dropped_identity(read_config(inputs.run)),
        }

    def remarks(self, config: InterpretConfig, inputs: InterpretInputs) -> list[str]:
        found = text_remarks(inputs.store, inputs.text, read_config(inputs.run))
        return found + training_warnings([inputs.run])

    def title(self, config: InterpretConfig, inputs: InterpretInputs) -> str:
        return f"Latents of {inputs.run.resolve().name} in words"

    def label(self, config: InterpretConfig, inputs: InterpretInputs) -> str:
        return f"{inputs.store.spec['subject']['name']}-{inputs.sites[-1]}"

    def estimate(self, config: InterpretConfig, inputs: InterpretInputs) -> Mapping[str, Any]:
        plan = plan_of(config, inputs, resolve_device(config.device))
        counts = {"latents": len(plan.latents), "too_rare": len(plan.too_rare)}
        return {"run": inputs.run.resolve().name, **counts, **plan.cost}

    def compute(
        self, config: InterpretConfig, inputs: InterpretInputs, device: torch.device
    ) -> InterpretFindings:
        plan = plan_of(config, inputs, device)
        return InterpretFindings(
            run=inputs.run.resolve().name,
            store=inputs.store.name,
            model=inputs.model.name,
            latents=interpret(plan.questions, plan.asker, plan.latents),
            too_rare=plan.too_rare,
            estimate=plan.cost,
            tally=plan.asker.tally,
            read=plan.questions.read,
        )

    def figures(self, findings: InterpretFindings) -> dict[str, Any]:
        return findings.figures()

    def headline(self, figures: Mapping[str, Any]) -> str:
        return page.headline(figures)

    def table(self, figures: Mapping[str, Any]) -> str:
        return page.table(figures)

    def complete(self, figures: Mapping[str, Any]) -> bool:
        return not figures["failed"]

    def write_tables(self, findings: InterpretFindings, folder: Path) -> None:
        write_records(folder / "latents.csv", [one.row() for one in findings.latents])
        write_records(folder / "judgements.csv", findings.judgements())

    def page(
        self, config: InterpretConfig, inputs: InterpretInputs, findings: InterpretFindings
    ) -> Mapping[str, Any]:
        return page.context(config, findings)


def model_of(config: InterpretConfig) -> Model:
    """The model that a config names. Raises ConfigError and SubjectError."""
    if config.local:
        subject = language_subject(config.local, config.compute)
        return local_model(subject, resolve_device(config.device))
    key = ""
    if config.key_env:
        key = os.environ.get(config.key_env, "")
        if not key:
            shown = f"${config.key_env}" if NAME.fullmatch(config.key_env) else "the one named"
            raise ConfigError(
                f"--key-env must name a variable that holds the endpoint's key; {shown} is not "
                "set. Set it, or leave the flag out if no key is needed."
            )
    return endpoint_model(
        config.endpoint, config.model, key, timeout=config.timeout, parallel=config.parallel
    )


def choose_latents(config: InterpretConfig, run: Path) -> list[int]:
    """The latents by number, or `count` of those that fire on held-out rows, in some order."""
    frequency_S = load_frequency(run).numpy()
    if config.latents:
        if max(config.latents) >= len(frequency_S):
            raise ConfigError(
                f"--latents must be from 0 to {len(frequency_S) - 1} in {run.name}; got "
                f"{max(config.latents)}."
            )
        return list(dict.fromkeys(config.latents))
    alive = np.flatnonzero(frequency_S > 0)
    if config.order == "random":
        return [int(i) for i in alive[order.sample(len(alive), config.count, config.seed, 20)]]
    sign = -1 if config.order == "frequent" else 1
    ranked = alive[np.argsort(sign * frequency_S[alive], kind="stable")]
    return [int(i) for i in ranked[: config.count]]


def plan_of(config: InterpretConfig, inputs: InterpretInputs, device: torch.device) -> Plan:
    """Find the examples and count what is to be asked about them; tells the cost on stderr."""
    tokenizer = tokenizer_of_store(inputs.store, config.subject)
    read = readable(tokenizer, range(len(tokenizer))).__getitem__
    latents, too_rare = find_examples(config, inputs, device)
    parameters = {"temperature": 0, "max_tokens": config.max_tokens}
    answers = home_folder(config.home) / ANSWERS
    asker = Asker(inputs.model, answers, parameters, config.tries, config.backoff)
    questions = Questions(config, read)
    cost = estimate(questions, asker, latents)
    note(cost_sentence(cost, inputs.model.name))
    return Plan(questions, asker, latents, too_rare, cost)


def find_examples(
    config: InterpretConfig, inputs: InterpretInputs, device: torch.device
) -> tuple[list[Interpretation], list[int]]:
    """The latents with their examples, and those with too few for any score.

    Raises ConfigError where none has enough.
    """
    frequency_S = load_frequency(inputs.run)
    firing = firing_of(
        inputs.rows, inputs.sites, inputs.text, inputs.dictionary, inputs.latents, device
    )
    enough, too_rare = [], []
    for member, latent in enumerate(inputs.latents):
        examples = examples_of(
            firing,
            member,
            config.example_tokens,
            shown=config.shown,
            top=config.top,
            tested=config.tested,
            min_peak=config.min_peak,
            seed=config.seed,
        )
        if min(len(examples.active), len(examples.silent)) < LEAST_TESTED:
            too_rare.append(latent)
        else:
            enough.append(Interpretation(examples, float(frequency_S[latent])))
    if not enough:
        raise ConfigError(
            f"a latent needs {config.shown} activating examples to be explained, and "
            f"{LEAST_TESTED} more of each kind, active and silent, to be tested; of the "
            f"{len(inputs.latents)} latents none has them in {inputs.store.name}. Choose other "
            "--latents, fewer --example-tokens, or a larger --store."
        )
    if too_rare:
        note(f"{len(too_rare)} latents have too few active or silent examples and are left out.")
    return enough, too_rare
