"""Automatic interpretation: a model writes a sentence about each latent, and is then tested on how
well that sentence predicts where the latent is active.

Source: Paulo, Mallen, Juang and Belrose, Automatically Interpreting Millions of Features in Large
Language Models (2410.13928); Cunningham et al. (2309.08600).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from tendril.data import order
from tendril.data.cli import note
from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError, SubjectError
from tendril.data.home import find_run, home_folder
from tendril.data.store.paired import PairedStores
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import load_frequency, load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.subjects.language import LanguageSubject, language_subject

from ..core.config import dropped_identity
from ..core.language_inputs import tokenizer_of_store
from ..core.report import write_records
from ..core.stores import (
    StoredText,
    common_store,
    dictionary_digests,
    rows_of_run,
    text_of,
    text_remarks,
    trained_sites,
    training_warnings,
    without_dropped,
)
from ..core.study import Study
from ..core.token_text import readable
from ..measures.simulation_fragments import SimulationFragments, fragments_of, moments_of
from ..measures.text_examples import examples_of, firing_of
from . import page
from .asking import Asker, Model
from .config import LEAST_TESTED, InterpretConfig
from .embedding import local_encoder
from .endpoint import embedding_endpoint, endpoint_model
from .findings import Dictionary, Interpretation, InterpretFindings
from .local import local_model
from .redact import NAME
from .scoring import Questions, cost_sentence, estimate, interpret

ANSWERS = "answers"  # the folder beside reports/ where answers are kept


@final
@dataclass(frozen=True)
class Chosen:
    """A run, its dictionary, the text without the rows that its training dropped, and the latents
    to interpret."""

    run: Path
    dictionary: SAE
    text: StoredText
    latents: tuple[int, ...]


@final
@dataclass(frozen=True)
class InterpretInputs:
    """The run and its controls, their store, and the models that are asked."""

    runs: tuple[Chosen, ...]
    store: Store
    rows: Store | PairedStores
    sites: tuple[str, ...]
    model: Model
    encoder: Model | None

    @property
    def run(self) -> Path:
        """The run that the report is about."""
        return self.runs[0].run


@final
@dataclass(frozen=True)
class Plan:
    """What is to be asked about the latents of each dictionary, and what it costs."""

    questions: Questions
    dictionaries: Sequence[Dictionary]
    cost: Mapping[str, Any]


@final
class InterpretStudy(Study[InterpretConfig, InterpretInputs, InterpretFindings]):
    """Explain and score latents of a language model's dictionary.

    The report holds latents.csv, and judgements.csv, simulations.csv and intruders.csv with every
    answer. Where some
    latents got no answer the report says which; the same command asks for those again. Raises
    EndpointError where none got one.
    """

    name = "interpret"
    version = 4
    config = InterpretConfig

    def find(self, config: InterpretConfig) -> InterpretInputs:
        runs = [find_run(run, config.home) for run in (config.run, *config.controls)]
        store = common_store(runs, config.home, config.store)
        chosen: list[Chosen] = []
        sites: tuple[str, ...] = ()
        for place, run in enumerate(dict.fromkeys(runs)):
            dictionary = load_sae(run)
            rows = rows_of_run(run, store, config.home)
            its = trained_sites(run, rows, dictionary.width)
            if sites and its != sites:
                raise ConfigError(
                    f"--controls must be runs of {' + '.join(sites)}, as {runs[0].name} is; "
                    f"{run.name} is of {' + '.join(its)}. Choose others."
                )
            sites = its
            text = without_dropped(text_of(store), rows, sites, read_config(run))
            wanted = config if place == 0 else replace(config, latents=())
            chosen.append(Chosen(run, dictionary, text, tuple(choose_latents(wanted, run))))
        rows = rows_of_run(runs[0], store, config.home)
        models = model_of(config), encoder_of(config)
        return InterpretInputs(tuple(chosen), store, rows, sites, *models)

    def identity(self, config: InterpretConfig, inputs: InterpretInputs) -> Mapping[str, Any]:
        latents = {one.run.resolve().name: list(one.latents) for one in inputs.runs}
        return {
            "dictionary": dictionary_digests([one.run for one in inputs.runs]),
            "store": inputs.rows.name,
            "model": inputs.model.name,
            "latents": latents,
            **({"encoder": inputs.encoder.name} if inputs.encoder else {}),
            **dropped_identity(read_config(inputs.run)),
        }

    def remarks(self, config: InterpretConfig, inputs: InterpretInputs) -> list[str]:
        found = text_remarks(inputs.store, inputs.runs[0].text, read_config(inputs.run))
        return found + training_warnings([one.run for one in inputs.runs])

    def title(self, config: InterpretConfig, inputs: InterpretInputs) -> str:
        return f"Latents of {inputs.run.resolve().name} in words"

    def label(self, config: InterpretConfig, inputs: InterpretInputs) -> str:
        return f"{inputs.store.spec['subject']['name']}-{inputs.sites[-1]}"

    def estimate(self, config: InterpretConfig, inputs: InterpretInputs) -> Mapping[str, Any]:
        plan = plan_of(config, inputs, resolve_device(config.device))
        counts = {
            "latents": sum(len(one.latents) for one in plan.dictionaries),
            "too_rare": sum(len(one.too_rare) for one in plan.dictionaries),
        }
        return {"run": inputs.run.resolve().name, **counts, **plan.cost}

    def compute(
        self, config: InterpretConfig, inputs: InterpretInputs, device: torch.device
    ) -> InterpretFindings:
        plan = plan_of(config, inputs, device)
        found = interpret(plan.questions, [one.latents for one in plan.dictionaries])
        main, *controls = (
            replace(one, latents=latents)
            for one, latents in zip(plan.dictionaries, found, strict=True)
        )
        return InterpretFindings(
            kinds=config.kinds,
            seed=config.seed,
            store=inputs.store.name,
            model=inputs.model.name,
            main=main,
            controls=controls,
            estimate=plan.cost,
            tally=plan.questions.asker.tally,
            read=plan.questions.read,
            encoder=inputs.encoder.name if inputs.encoder else "",
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
        write_records(folder / "latents.csv", findings.rows())
        for name in ("judgements", "simulations", "intruders"):
            if records := getattr(findings, name)():
                write_records(folder / f"{name}.csv", records)

    def page(
        self, config: InterpretConfig, inputs: InterpretInputs, findings: InterpretFindings
    ) -> Mapping[str, Any]:
        return page.context(config, findings)


def model_of(config: InterpretConfig) -> Model:
    """The model that a config names. Raises ConfigError and SubjectError."""
    if config.local:
        subject = loaded(config.local, "local", config.compute)
        return local_model(subject, resolve_device(config.device))
    return endpoint_model(
        config.endpoint,
        config.model,
        key_of(config),
        timeout=config.timeout,
        parallel=config.parallel,
    )


def loaded(model: str, flag: str, compute: str = "float32") -> LanguageSubject:
    """A local model. Raises SubjectError, which names the flag that gave it."""
    try:
        return language_subject(model, compute)
    except SubjectError as error:
        raise SubjectError(str(error).replace("--subject", f"--{flag}")) from error


def encoder_of(config: InterpretConfig) -> Model | None:
    """The model that embeds texts, if a score needs one. Raises as `model_of` does."""
    if "embedding" not in config.kinds:
        return None
    if config.encoder:
        return local_encoder(loaded(config.encoder, "encoder"), resolve_device(config.device))
    return embedding_endpoint(
        config.embedding_endpoint or config.endpoint,
        config.embedding_model,
        key_of(config),
        timeout=config.timeout,
        parallel=config.parallel,
    )


def key_of(config: InterpretConfig) -> str:
    """The endpoint's key; empty for none. Raises ConfigError where its variable is not set."""
    if not config.key_env:
        return ""
    key = os.environ.get(config.key_env, "")
    if not key:
        shown = f"${config.key_env}" if NAME.fullmatch(config.key_env) else "the one named"
        raise ConfigError(
            f"--key-env must name a variable that holds the endpoint's key; {shown} is not "
            "set. Set it, or leave the flag out if no key is needed."
        )
    return key


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
    dictionaries = [find_examples(config, inputs, one, device) for one in inputs.runs]
    if not dictionaries[0].latents:
        raise ConfigError(
            f"a latent needs {config.shown} activating examples to be explained, and "
            f"{LEAST_TESTED} more of each kind, active and silent, to be tested; of the "
            f"{len(inputs.runs[0].latents)} latents none has them in {inputs.store.name}. Choose "
            "other --latents, fewer --example-tokens, or a larger --store."
        )
    if too_rare := sum(len(one.too_rare) for one in dictionaries):
        note(f"{too_rare} latents have too few active or silent examples and are left out.")
    parameters = {"temperature": 0, "max_tokens": config.max_tokens}
    answers = home_folder(config.home) / ANSWERS
    asker = Asker(inputs.model, answers, parameters, config.tries, config.backoff)
    encoder = replace(asker, model=inputs.encoder, parameters={}) if inputs.encoder else None
    questions = Questions(config, read, asker, encoder)
    cost = estimate(questions, [one.latents for one in dictionaries])
    note(cost_sentence(cost, inputs.model.name))
    return Plan(questions, dictionaries, cost)


def find_examples(
    config: InterpretConfig, inputs: InterpretInputs, chosen: Chosen, device: torch.device
) -> Dictionary:
    """The latents of a run with their examples, and those with too few for any score."""
    frequency_S = load_frequency(chosen.run)
    firing = firing_of(
        inputs.rows, inputs.sites, chosen.text, chosen.dictionary, chosen.latents, device
    )
    enough, too_rare = [], []
    for member, latent in enumerate(chosen.latents):
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
            continue
        fragments = SimulationFragments()
        if "simulation" in config.kinds:
            fragments = fragments_of(
                firing,
                member,
                config.example_tokens,
                shown=config.shown,
                top=config.top,
                count=config.simulated,
                random=config.random_examples,
                min_peak=config.min_peak,
                seed=config.seed,
            )
        skew, kurtosis = moments_of(firing, member)
        enough.append(
            Interpretation(
                examples,
                float(frequency_S[latent]),
                fragments=fragments,
                skew=skew,
                kurtosis=kurtosis,
            )
        )
    return Dictionary(chosen.run.resolve().name, enough, too_rare)
