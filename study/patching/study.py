"""The command `tendril study patching`: dictionaries against principal components."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.home import find_run
from tendril.data.store.tables import columns
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.subjects.language import LanguageSubject

from ..core.language_inputs import language_subject_of
from ..core.language_text import check_causal
from ..core.report import report_of
from ..measures.activation_patching import (
    PCA,
    Curve,
    Features,
    Patching,
    by_attribution,
    curve,
    features_of,
    greedily,
    greedily_each,
    principal_components,
)
from ..splice.images import one_site
from ..splice.text import store_of_runs
from .config import PatchingConfig
from .page import ORDERS, patching_page
from .prompts import Pairs, generated_pairs

SHARES = (0.5, 0.8)
OWN_FIELDS = ("device", "home", "name", "batch_size")  # that change nothing


def study_patching(config: PatchingConfig) -> dict[str, Any]:
    """Patch features from counterfactual prompts into base ones; print a table, write a page,
    and return all figures.

    Raises children of TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    device = resolve_device(config.device)
    keep_freed_memory()
    folders = [find_run(run, config.home) for run in config.run]
    site = one_site({folder: read_config(folder) for folder in folders})
    store = store_of_runs(folders, config.home, config.store, anywhere=False)
    subject = language_subject_of(store, site, config.subject)
    check_causal(subject, "patching")
    pairs = generated_pairs(
        subject, config.pairs, config.seed, config.change, config.names, config.prompts
    )
    subject.module.to(device)
    kinds = {folder.resolve().name: features_of(load_sae(folder).to(device)) for folder in folders}
    kinds[PCA] = principal_components(store, site, config.rows, device)
    pairs = pairs.to(device)
    fitted, told = pairs.part(0, config.fitted), pairs.part(config.fitted, len(pairs))
    curves = {
        name: _curves(config, subject, site, (fitted, told), features)
        for name, features in kinds.items()
    }
    whole = _answers(subject, site, told, kinds[PCA], config)
    figures: dict[str, Any] = {
        "subject": subject.name,
        "site": site,
        "store": store.name,
        "pairs": len(told),
        "fitted": len(fitted),
        "prompts": config.prompts,
        "change": config.change,
        "positions": config.positions,
        **whole,
        "curves": {
            name: {way: _told(one, whole["kl_whole"]) for way, one in ways.items()}
            for name, ways in curves.items()
        },
    }
    print(needed_table(figures), flush=True)
    made = {k: v for k, v in asdict(config).items() if k not in OWN_FIELDS} | {"run": list(kinds)}
    made["names"] = list(config.names)
    report = report_of(config.home, config.name or f"patching-{subject.name}-{site}", made)
    report.write(patching_page(figures, told.texts[:8]), figures)
    brief = {k: v for k, v in figures.items() if k != "curves"}
    brief["needed"] = {
        name: {way: one["needed"] for way, one in ways.items()}
        for name, ways in figures["curves"].items()
    }
    seconds = round(time.monotonic() - began, 3)
    return {"report": str(report.folder), **brief, "seconds": seconds}


def needed_table(figures: Mapping[str, Any]) -> str:
    """How many features take off half, and four fifths, of what changing the whole site does."""
    where = "from the first token that differs on" if figures["positions"] == "after" else (
        "at the last token alone"
    )  # fmt: skip
    head = (
        f"{figures['subject']} {figures['site']}: {figures['pairs']} pairs, features changed "
        f"{where}. KL before {figures['kl_before']:.3f}, with the whole site changed "
        f"{figures['kl_whole']:.3f}. The model prefers the right name to the other prompt's in "
        f"{figures['right_base']:.0%} of the base prompts and "
        f"{figures['right_counterfactual']:.0%} of the counterfactual ones.\n"
    )
    rows: list[list[str]] = [
        ["features needed", *(f"{way} {share:.0%}" for way in ORDERS for share in SHARES)]
    ]
    for name, ways in figures["curves"].items():
        needed = [ways.get(way, {"needed": {}})["needed"] for way in ORDERS]
        rows.append([name, *(str(one.get(f"{s:.0%}") or "-") for one in needed for s in SHARES)])
    return head + columns(rows)


def _curves(
    config: PatchingConfig,
    subject: LanguageSubject,
    site: str,
    parts: tuple[Pairs, Pairs],
    features: Features,
) -> dict[str, Curve]:
    """A curve of each order, on pairs that did not decide it (but for each pair's own)."""
    fitted, told = (
        Patching(subject, site, part, features, config.positions, config.batch_size)
        for part in parts
    )
    shared_F = by_attribution(fitted)
    own_PF = told.gain_PF.argsort(dim=1, descending=True, stable=True)
    curves = {
        "attribution": curve(told, shared_F, config.features),
        "own_attribution": curve(told, own_PF, config.features),
    }
    if config.greedy:
        chosen_F = greedily(fitted, config.candidates, config.greedy)
        each_PF = greedily_each(told, config.candidates, config.greedy)
        curves["greedy"] = curve(told, chosen_F, config.greedy)
        curves["own_greedy"] = curve(told, each_PF, config.greedy)
    return curves


def _told(one: Curve, whole: float) -> dict[str, Any]:
    return {
        "kl": list(one.kl),
        "size": list(one.size),
        "needed": {f"{share:.0%}": one.needed(share, whole) for share in SHARES},
    }


def _answers(
    subject: LanguageSubject, site: str, told: Pairs, any_features: Features, config: PatchingConfig
) -> dict[str, float]:
    """KL with nothing and with the whole site changed, and how often the model prefers the right
    answer to that of the other prompt of the pair."""
    patching = Patching(subject, site, told, any_features, config.positions, config.batch_size)
    rows, whole_PTD = torch.arange(len(told)), patching.whole_PTD
    found = {
        "kl_before": float(patching.kl(torch.zeros_like(whole_PTD)).mean()),
        "kl_whole": float(patching.kl(whole_PTD).mean()),
        "size_whole": float(whole_PTD.flatten(1).norm(dim=1).mean()),
    }
    for side, (name, prompts_PT) in enumerate(
        {"right_base": told.base_PT, "right_counterfactual": told.counter_PT}.items()
    ):
        with torch.no_grad():
            logits_PV = subject.module(prompts_PT).logits[rows, told.last_P]
        answer_P2 = logits_PV.gather(1, told.answers_P2)
        found[name] = float((answer_P2[:, side] > answer_P2[:, 1 - side]).float().mean())
    return found
