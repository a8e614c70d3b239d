"""What a language model still predicts when a site is replaced by its reconstruction."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64

from tendril.data.device import keep_freed_memory, resolve_device
from tendril.data.errors import ConfigError
from tendril.data.home import find_run
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.sites.language_splice import TokenSums, kept_mean, next_token_sums
from tendril.models.sites.splice import CLEAN, Reconstruction, Substitute, ablating, recovered
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from ..core.language_inputs import language_subject_of, store_of_run
from ..core.language_text import JudgedText, check_causal, given_text, held_out_share, held_out_text
from ..core.report import report_of
from ..core.token_classes import CLASSES, bucket_of, position_buckets, token_classes
from ..curves.config import SpliceConfig
from .images import MEAN, ZERO, one_site
from .page import splice_page, splice_tables


def study_language_splice(config: SpliceConfig) -> dict[str, Any]:
    """Run held-out text through a language model with the site as it is, reconstructed by each
    run, zero, and at its mean; print tables, write a page, and return all figures.

    Raises children of TendrilError for all that the config, its paths or its files can cause.
    """
    began = time.monotonic()
    config.check()
    if config.labels:
        raise ConfigError("--labels is for images; a text is its own next tokens.")
    device = resolve_device(config.device)
    keep_freed_memory()
    folders = [find_run(run, config.home) for run in config.run]
    trained = {folder: read_config(folder) for folder in folders}
    site = one_site(trained)
    store = store_of_runs(folders, config.home, config.store, anywhere=bool(config.inputs))
    subject = language_subject_of(store, site, config.subject)
    check_causal(subject, "splice")
    dictionaries = {folder.resolve().name: load_sae(folder).to(device) for folder in folders}
    subject.module.to(device)
    if config.inputs:
        text = given_text(config.inputs, store, subject, config.limit, config.home, device)
    else:
        share = held_out_share(list(trained.values()))
        text = held_out_text(store, share, config.limit)
    runs = {name: Reconstruction(one) for name, one in dictionaries.items()}
    groups = Groups.of(text, subject)
    sums = _sums(text, subject, site, runs, groups, config.batch_size, device)
    figures = {
        "subject": subject.name,
        "site": site,
        "store": store.name,
        "text": text.source,
        "contexts": len(text.tokens_BT),
        **groups.figures(sums, {name: run.on / max(run.vectors, 1) for name, run in runs.items()}),
    }
    print(splice_tables(figures), flush=True)
    told = {"study": "splice", "runs": sorted(runs), "text": text.source, "limit": config.limit}
    report = report_of(config.home, f"splice-{subject.name}-{site}", told)
    report.write(splice_page(figures), figures)
    seconds = round(time.monotonic() - began, 3)
    return {"report": str(report.folder), **figures, "seconds": seconds}


def store_of_runs(folders: Sequence[Path], home: str, store: str, *, anywhere: bool) -> Store:
    """The store that all of some runs were trained on. Where none of its contexts are to be read
    (`anywhere`), that of the first run says how text is cut. Raises ConfigError."""
    found = {folder.name: store_of_run(folder, home, store) for folder in folders}
    names = {one.name for one in found.values()}
    if len(names) > 1 and not anywhere:
        raise ConfigError(
            f"the runs were trained on several stores ({', '.join(sorted(names))}), so which "
            "contexts are held out differs; pass --inputs with a text for all of them."
        )
    return next(iter(found.values()))


@final
@dataclass(frozen=True)
class Groups:
    """Predictions by the position and the class of the token that is predicted."""

    buckets: Sequence[tuple[int, int]]
    group_BT: Int64[np.ndarray, "b t"]

    @classmethod
    def of(cls, text: JudgedText, subject: LanguageSubject) -> "Groups":
        """Groups of a text; a prediction counts where the position that makes it is kept."""
        length = text.tokens_BT.shape[1]
        buckets = position_buckets(length)
        classes_V = token_classes(subject.tokenizer, subject.vocabulary)
        number_BT = bucket_of(length, buckets) * len(CLASSES) + classes_V[text.tokens_BT]
        group_BT = np.full(text.tokens_BT.shape, -1)
        group_BT[:, :-1] = np.where(text.kept_BT[:, :-1], number_BT[:, 1:], -1)
        if not (group_BT >= 0).any():
            raise ConfigError(
                f"{text.source} has no position to be spliced that a token follows; give --inputs "
                "more text."
            )
        return cls(buckets, group_BT)

    def __len__(self) -> int:
        return len(self.buckets) * len(CLASSES)

    def figures(
        self, sums: Mapping[str, TokenSums], latents_on: Mapping[str, float]
    ) -> dict[str, Any]:
        """Figures of each condition, over all predictions, by position and by class.

        Loss recovered is 1 - (CE_spliced - CE_clean) / (CE_ablated - CE_clean); FVU that of all
        vectors replaced.
        """
        every = compared(sums)
        for name, mean_on in latents_on.items():
            every["runs"][name]["fvu"] = sums[name].missed / sums[MEAN].missed
            every["runs"][name]["l0"] = mean_on
        grid = torch.arange(len(self)).reshape(len(self.buckets), len(CLASSES))
        parts = {
            "by_position": {f"{a}-{b}": grid[i] for i, (a, b) in enumerate(self.buckets)},
            "by_class": {name: grid[:, i] for i, name in enumerate(CLASSES)},
        }
        there_G = sums[CLEAN].sums_FG[0] > 0
        return every | {
            part: {
                name: compared(sums, at, len(self)) for name, at in cut.items() if there_G[at].any()
            }
            for part, cut in parts.items()
        }


def compared(
    sums: Mapping[str, TokenSums], at: torch.Tensor | None = None, groups: int = 0
) -> dict[str, Any]:
    """Figures of each condition in some groups or all, and what each run recovers."""
    chosen_G = None
    if at is not None:
        chosen_G = torch.zeros(groups, dtype=torch.bool)
        chosen_G[at] = True
    means = {name: one.means(chosen_G) for name, one in sums.items()}
    count = means[CLEAN].pop("count")
    runs: dict[str, Any] = {}
    for name in (n for n in means if n not in (CLEAN, ZERO, MEAN)):
        loss = means[name]["cross_entropy"]
        runs[name] = {key: value for key, value in means[name].items() if key != "count"}
        for against in (ZERO, MEAN):
            ablated = means[against]["cross_entropy"]
            told = recovered(means[CLEAN]["cross_entropy"], loss, ablated)
            runs[name][f"recovered_against_{against}"] = told
    for name in (ZERO, MEAN):
        del means[name]["count"]
    return {
        "predictions": count,
        **{name: means[name] for name in (CLEAN, ZERO, MEAN)},
        "runs": runs,
    }


def _sums(
    text: JudgedText,
    subject: LanguageSubject,
    site: str,
    runs: Mapping[str, Reconstruction],
    groups: Groups,
    size: int,
    device: torch.device,
) -> dict[str, TokenSums]:
    names = site_modules(subject, [site])[site]
    mean_D = kept_mean(subject.module, names, text.batches(size, device, "mean of the site"))
    substitutes: dict[str, Substitute] = {**runs, ZERO: ablating(), MEAN: ablating(mean_D)}
    batches = text.batches(size, device, "splice", groups.group_BT)
    return next_token_sums(subject.module, names, substitutes, batches, len(groups))
