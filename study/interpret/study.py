"""Automatic interpretation: a model writes a sentence about each latent, and is then tested on how
well that sentence predicts where the latent is active.

Source: Paulo, Mallen, Juang and Belrose, Automatically Interpreting Millions of Features in Large
Language Models (2410.13928); Cunningham et al. (2309.08600).
"""

import csv
import io
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tendril.data import order
from tendril.data.cli import note
from tendril.data.device import resolve_device
from tendril.data.errors import ConfigError, EndpointError
from tendril.data.home import find_run, home_folder
from tendril.data.store.atomic import write_whole
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import DICTIONARY, load_frequency, load_sae, read_config

from ..core.language_inputs import store_of_run, text_of, tokenizer_of_store
from ..core.report import Report, file_digest, report_of
from ..core.token_text import readable
from ..measures.text_examples import examples_of, firing_of
from ..page.render import render
from .ask import Asker, Model
from .clients import model_of
from .config import LEAST_TESTED, InterpretConfig
from .findings import Interpretation, figures_of, judgements, latent_figures, table
from .judge import Questions, estimate, interpret
from .page import page_context

FORMAT = 2  # raised when the same sources would give another page
ANSWERS = "answers"  # the folder beside reports/ that keeps what models said
DETERMINE = (
    *("fragment", "shown", "top", "tested", "together", "mark", "floor", "graded", "shuffled"),
    *("max_tokens", "seed"),
)


def study_interpret(config: InterpretConfig) -> dict[str, Any]:
    """Explain and score latents of a language model's dictionary; make a page.

    Where some latents got no answer the report is made all the same and says which; the same
    command asks for those again. Raises EndpointError where none got one, and children of
    TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    run = find_run(config.run, config.home)
    store = store_of_run(run, config.home, config.store)
    model = model_of(config)
    latents = choose_latents(config, run)
    made = {
        "format": FORMAT,
        "run": [run.resolve().name, file_digest(run / DICTIONARY)],
        "store": store.name,
        "model": model.name,
        "latents": latents,
        **{name: getattr(config, name) for name in DETERMINE},
    }
    report = report_of(config.home, config.name or "interpret", made)
    told = None if config.overwrite or config.dry_run else report.figures()
    reused = told is not None and not told["failed"]
    if told is None or not reused:
        told = _study(config, run, store, model, latents, report, made)
    if config.dry_run:
        return told
    summary = {name: value for name, value in told.items() if name != "latents"}
    seconds = round(time.monotonic() - began, 2)
    return {"report": str(report.page), **summary, "seconds": seconds, "reused": reused}


def _study(
    config: InterpretConfig,
    run: Path,
    store: Store,
    model: Model,
    latents: Sequence[int],
    report: Report,
    made: Mapping[str, Any],
) -> dict[str, Any]:
    """Ask what has not been asked, then write the report."""
    tokenizer = tokenizer_of_store(store, config.subject)
    read = readable(tokenizer, range(len(tokenizer))).__getitem__
    every, rare = find_examples(config, run, store, latents)
    parameters = {"temperature": 0, "max_tokens": config.max_tokens}
    answers = home_folder(config.home) / ANSWERS
    asker = Asker(model, answers, parameters, config.tries, config.backoff)
    questions = Questions(config, read)
    cost = estimate(questions, asker, every)
    note(cost_words(cost, config, model.name))
    if config.dry_run:
        return {"run": run.resolve().name, "latents": len(every), "too_rare": rare, **cost}
    found = interpret(questions, asker, every)
    note(table(found))
    failed = [one for one in found if one.failed]
    if failed and not any(one.explanation for one in found):
        raise EndpointError(
            f"{model.name} should explain {len(found)} latents, and gave no answer that could be "
            f"used for any (latent {failed[0].latent}: {failed[0].failed}); look after it, then "
            "run the same command again."
        )
    if failed:
        note(
            f"{len(failed)} of {len(found)} latents got no answer (latent {failed[0].latent}: "
            f"{failed[0].failed}); the same command asks again, for what is missing only."
        )
    figures = {
        "run": run.resolve().name,
        "store": store.name,
        "model": model.name,
        **figures_of(found),
        "too_rare": rare,
        "estimate": cost,
        **asdict(asker.tally),
    }
    folder = report.begin()
    for name, rows in (
        ("latents.csv", [latent_figures(one) for one in found]),
        ("judgements.csv", judgements(found)),
    ):
        write_whole(folder / name, csv_of(rows).encode())
    context = page_context(found, figures, config, read, command(config, run), made)
    report.write(render(Path(__file__).parent, context), figures)
    return figures


def choose_latents(config: InterpretConfig, run: Path) -> list[int]:
    """The latents by number, or `count` of those that fire on held-out rows, in some order."""
    frequency_S = load_frequency(run).numpy()
    if config.latents:
        if max(config.latents) >= len(frequency_S):
            raise ConfigError(
                f"--latents are from 0 to {len(frequency_S) - 1} in {run.name}, and not "
                f"{max(config.latents)}."
            )
        return list(dict.fromkeys(config.latents))
    alive = np.flatnonzero(frequency_S > 0)
    if config.order == "random":
        return [int(i) for i in alive[order.sample(len(alive), config.count, config.seed, 20)]]
    sign = -1 if config.order == "frequent" else 1
    ranked = alive[np.argsort(sign * frequency_S[alive], kind="stable")]
    return [int(i) for i in ranked[: config.count]]


def find_examples(
    config: InterpretConfig, run: Path, store: Store, latents: Sequence[int]
) -> tuple[list[Interpretation], list[int]]:
    """The latents with their fragments, and those with too few for any score.

    Raises ConfigError where none has enough."""
    dictionary, trained = load_sae(run), read_config(run)
    sites = list(trained.get("sites") or [trained["site"]])
    for site in sites:
        store.check_site(site)
    width = sum(store.width(site) for site in sites)
    if width != dictionary.width:
        raise ConfigError(
            f"{run.name} takes vectors of width {dictionary.width}, and {store.name} has {width} "
            f"at {', '.join(sites)}; give the --store that it was trained on."
        )
    device = resolve_device(config.device)
    frequency_S = load_frequency(run)
    firing = firing_of(store, sites, text_of(store), dictionary, latents, device)
    every, rare = [], []
    for member, latent in enumerate(latents):
        examples = examples_of(
            firing,
            member,
            config.fragment,
            shown=config.shown,
            top=config.top,
            tested=config.tested,
            floor=config.floor,
            seed=config.seed,
        )
        if min(len(examples.active), len(examples.silent)) < LEAST_TESTED:
            rare.append(latent)
        else:
            every.append(Interpretation(examples, float(frequency_S[latent])))
    if not every:
        raise ConfigError(
            f"none of the {len(latents)} latents has {config.shown} fragments of {store.name} to "
            f"explain and {LEAST_TESTED} more of each kind, active and silent, to test on; choose "
            "other --latents, a shorter --fragment, or a larger --store."
        )
    if rare:
        note(f"{len(rare)} latents are active, or silent, in too few fragments and are left out.")
    return every, rare


def cost_words(cost: Mapping[str, Any], config: InterpretConfig, model: str) -> str:
    """The estimate in a sentence."""
    price = f", for {cost['price']:,.2f}" if config.price_in or config.price_out else ""
    return (
        f"{cost['requests']:,} requests to {model} ({cost['kept']:,} more are answered already): "
        f"about {cost['tokens_in']:,} tokens of prompts and {cost['tokens_out']:,} of answers"
        f"{price}."
    )


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, with a head."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def command(config: InterpretConfig, run: Path) -> str:
    """The command that makes the page again, in words that name no folder or machine."""
    who = (
        ["--endpoint", "URL", "--model", config.model] if config.endpoint else ["--local", "MODEL"]
    )
    which: list[str] = ["--order", config.order, "--count", str(config.count)]
    if config.latents:
        which = ["--latents", *map(str, config.latents)]
    usual = InterpretConfig()
    flags: list[str] = []
    for name in DETERMINE:
        value, flag = getattr(config, name), name.replace("_", "-")
        if value != getattr(usual, name):
            on = isinstance(value, bool)
            flags += [f"--{flag}" if value else f"--no-{flag}"] if on else [f"--{flag}", str(value)]
    return shlex.join(
        ["tendril", "study", "interpret", "--run", run.resolve().name, *who, *which, *flags]
    )
