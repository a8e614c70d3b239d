"""The study of features: a dictionary of a language model in, a page of all its latents out."""

import csv
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64

from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.home import find_run
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.subjects.language import LanguageSubject

from ..core.language_inputs import StoredText, language_subject_of, store_of_run, text_of
from ..core.report import Report, StudyResult, file_digest, report_of
from ..core.token_text import readable
from ..measures.decoder_directions import neighbours, promoted
from ..measures.latent_activity import SAMPLE, Activity, chosen_contexts, watch
from ..measures.tuning import exact_arithmetic
from .config import FeaturesConfig
from .findings import FeatureFindings
from .page import render_page
from .page_data import write_data

FORMAT = 2  # raised when the same sources would give another page
TOKENS, NEIGHBOURS = 10, 8  # promoted and suppressed tokens, and neighbours, a latent
LIMITS = ("part", "limit", "top", "quantiles", "window")


@final
@dataclass(frozen=True)
class FeatureSources:
    """All that the study reads, but the language model. `contexts` are those that are read."""

    run: Path
    trained: Mapping[str, Any]
    dictionary: SAE
    store: Store
    text: StoredText
    sites: tuple[str, ...]
    contexts: Int64[np.ndarray, " b"]


def study_features(config: FeaturesConfig) -> StudyResult:
    """Read every latent of a run off its store's text, and make a page of them.

    The report's folder is `<home>/reports/<name>-<12 hex of SHA-256 of what determines it>`;
    one that is there already is given back. It holds index.html with data/ beside it,
    latents.csv and, last, result.json. Raises children of TendrilError for all that the config,
    its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    sources = find(config)
    made = determinants(config, sources)
    name = config.name or f"features-{sources.store.spec['subject']['name']}-{sources.sites[-1]}"
    report = report_of(config.home, name, made)
    known = None if config.overwrite else report.figures()
    if known is not None:
        return StudyResult(report.page, known, _since(began), reused=True)
    subject = language_subject_of(sources.store, sources.sites[-1], config.subject)
    with exact_arithmetic():
        found = find_features(config, sources, subject, made, device)
    figures = write_report(report, found)
    return StudyResult(report.page, figures, _since(began))


def find(config: FeaturesConfig) -> FeatureSources:
    """Find run, store and text, and check that they belong together."""
    run = find_run(config.run, config.home)
    trained, dictionary = read_config(run), load_sae(run)
    store = store_of_run(run, config.home, config.store)
    text = text_of(store)
    sites = tuple(trained.get("sites") or (trained["site"],))
    width = sum(store.width(site) for site in sites)
    if width != dictionary.width:
        raise RunDamagedError(
            f"the dictionary of {run.name} takes vectors of width {dictionary.width}, and "
            f"{' + '.join(sites)} of {store.name} has {width}; give the --store that it was "
            "trained on."
        )
    held_out = float(trained.get("held_out", BATCH_DEFAULTS["held_out"]))
    contexts = chosen_contexts(text, config.part, held_out, config.limit)
    if not len(contexts) or not text.valid_BT[contexts].any():
        raise ConfigError(
            f"--part {config.part} of {store.name} has no token to read with {held_out:g} of its "
            f"{len(text.tokens_BT)} contexts held out; choose another --part, or harvest more."
        )
    return FeatureSources(run, trained, dictionary, store, text, sites, contexts)


def determinants(config: FeaturesConfig, sources: FeatureSources) -> dict[str, Any]:
    """All that determines the report."""
    told = asdict(config)
    return {
        "format": FORMAT,
        "run": {sources.run.name: file_digest(sources.run / DICTIONARY)},
        "store": sources.store.name,
        "sites": list(sources.sites),
        "held_out": sources.trained.get("held_out"),
        "limits": {name: told[name] for name in LIMITS},
    }


def find_features(
    config: FeaturesConfig,
    sources: FeatureSources,
    subject: LanguageSubject,
    made: Mapping[str, Any],
    device: torch.device,
) -> FeatureFindings:
    """Read the store once, then the directions."""
    dictionary, text, store = sources.dictionary, sources.text, sources.store
    sample = max(SAMPLE, config.quantiles) if config.quantiles else 0
    activity = watch(
        store,
        sources.sites,
        dictionary,
        text.valid_BT,
        sources.contexts,
        Activity(dictionary.latents, text.tokens_BT.shape[1], config.top, sample, config.window),
        device,
    )
    W_dec = dictionary.W_dec.detach()
    subject.module.to(device)
    writes = promoted(subject, W_dec[:, -store.width(sources.sites[-1]) :], TOKENS)
    return FeatureFindings(
        run=sources.run.name,
        store=store.name,
        subject=subject.name,
        sites=sources.sites,
        part=config.part,
        contexts=len(sources.contexts),
        quantiles=config.quantiles,
        text=text,
        text_of=readable(subject.tokenizer, range(subject.vocabulary)),
        activity=activity,
        promoted=writes,
        neighbours=neighbours(W_dec, NEIGHBOURS),
        norm_S=W_dec.norm(dim=1).float().cpu().numpy(),
        note="" if writes else no_logits(subject, sources.sites[-1]),
        command=command(config, sources),
        made={"study": made, "run": dict(sources.trained), "store": store.spec},
    )


def no_logits(subject: LanguageSubject, site: str) -> str:
    """Why there are no logit weights, in a sentence."""
    if subject.kind == "encoder":
        return (
            f"There are no tokens that a latent promotes: {subject.name} is an encoder, whose "
            "network ends in vectors and not in logits."
        )
    return (
        f"There are no tokens that a latent promotes: {site} has not the width of what "
        f"{subject.name} reads its logits from."
    )


def write_report(report: Report, found: FeatureFindings) -> dict[str, Any]:
    """Write everything a report holds, its result last. Returns the figures."""
    folder = report.begin()
    sizes = write_data(found, folder / "data")
    with (folder / "latents.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(found.row(0)))
        table.writeheader()
        table.writerows(found.row(latent) for latent in range(found.latents))
    figures = {**found.figures, **sizes}
    report.write(render_page(found), figures)
    return figures


def command(config: FeaturesConfig, sources: FeatureSources) -> str:
    """The command that makes this page again, in words that name no folder of this machine."""
    words = ["tendril", "study", "features", "--run", sources.run.name]
    if config.store:
        words += ["--store", sources.store.name]
    default, told = asdict(FeaturesConfig()), asdict(config)
    for name in LIMITS:
        if told[name] != default[name]:
            words += [f"--{name}", str(told[name])]
    return shlex.join(words)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 2)
