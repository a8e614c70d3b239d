"""Splicing in a language model: how well it still predicts the next token."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64

from tendril.data.errors import ConfigError
from tendril.models.dictionaries.checkpoint import load_sae, read_config
from tendril.models.dictionaries.sae import SAE
from tendril.models.sites.language_splice import TokenSums, kept_mean, next_token_sums
from tendril.models.sites.splice import MEAN, ZERO, Reconstruction, Substitute, ablating
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.subject import site_modules

from ..core.language_inputs import LanguageInputs, find_language_inputs
from ..core.language_text import JudgedText, TextChoice, choose_text
from ..core.token_classes import CLASSES, bucket_of, position_buckets, token_classes
from .config import SpliceConfig
from .findings import Findings, best, text_figures
from .pair import Beside, PairReconstruction, find_pair


@final
@dataclass(frozen=True)
class SplicedText:
    """Runs of one site of a language model, and the text to judge them on. Runs of two networks
    have the other one `beside`."""

    found: LanguageInputs
    text: TextChoice
    beside: Beside | None = None

    @property
    def subject(self) -> LanguageSubject:
        """The language model."""
        return self.found.subject

    @property
    def subject_name(self) -> str:
        """The name of the subject, for titles."""
        return self.subject.name

    @property
    def site(self) -> str:
        """The site that is replaced."""
        return self.found.site

    def identity(self, config: SpliceConfig) -> dict[str, Any]:
        """What determines findings besides the settings."""
        pair = {"beside": dict(self.beside.subject.identity)} if self.beside else {}
        return {**self.found.identity(), "text": self.text.key, **pair}

    def remarks(self) -> list[str]:
        """What became of norm outliers that the runs dropped or capped."""
        return self.found.remarks()

    def estimate(self) -> dict[str, Any]:
        """Counts for `--dry-run`."""
        return {"contexts": self.text.contexts, "runs": len(self.found.runs)}

    def compute(self, config: SpliceConfig, device: torch.device) -> Findings:
        """Run the text through the model in each condition."""
        found, subject = self.found, self.subject
        dictionaries = {run.resolve().name: load_sae(run).to(device) for run in found.runs}
        subject.module.to(device)
        text = self.text.read(found, config.home, device)
        groups = Groups.of(text, subject)
        runs = {name: self._reconstruction(one, device) for name, one in dictionaries.items()}
        sums = self._sums(text, runs, groups, config.batch_size, device)
        latents_on = {name: run.on / max(run.vectors, 1) for name, run in runs.items()}
        figures = text_figures(sums, latents_on, groups.parts(), len(groups))
        return {
            "subject": subject.name,
            "site": self.site,
            "store": found.store.name,
            "text": text.source,
            "contexts": len(text.tokens_BT),
            **best(figures),
            **figures,
        }

    def _reconstruction(
        self, sae: SAE, device: torch.device
    ) -> Reconstruction | PairReconstruction:
        if self.beside is None:
            return Reconstruction(sae)
        self.beside.subject.module.to(device)
        return PairReconstruction(sae, self.beside.width, self.beside.first)

    def _sums(
        self,
        text: JudgedText,
        runs: dict[str, Reconstruction | PairReconstruction],
        groups: "Groups",
        size: int,
        device: torch.device,
    ) -> dict[str, TokenSums]:
        module, names = self.subject.module, site_modules(self.subject, [self.site])[self.site]
        mean_D = kept_mean(module, names, text.batches(size, device, "mean of the site"))
        substitutes: dict[str, Substitute] = {**runs, ZERO: ablating(), MEAN: ablating(mean_D)}
        batches = text.batches(size, device, "splice", groups.group_BT)
        if self.beside is not None:
            paired = [one for one in runs.values() if isinstance(one, PairReconstruction)]
            batches = self.beside.reading(batches, paired)
        return next_token_sums(module, names, substitutes, batches, len(groups))


def find_text(config: SpliceConfig, runs: Sequence[Path]) -> SplicedText:
    """Find store, model and text of the runs, and check that they belong together.

    Raises ConfigError and what `find_language_inputs` and `choose_text` raise.
    """
    if config.labels:
        raise ConfigError(
            "--labels is for images; a text is judged by its own next tokens. Leave --labels out."
        )
    if config.attack != "none":
        raise ConfigError(
            "--attack changes pixels, and these are runs of text. Leave --attack out."
        )
    if any(read_config(run).get("paired_store") for run in runs):
        if config.store or config.subject:
            raise ConfigError(
                "--store and --subject must be left out for a crosscoder of two networks, whose "
                "stores say where both are. Pass --network to choose one."
            )
        pair, beside = find_pair(runs, config.home, config.network)
        return SplicedText(pair, choose_text(pair, config.inputs, config.limit), beside)
    if config.network:
        raise ConfigError(
            "--network must be given with a crosscoder of two networks. Leave it out."
        )
    found = find_language_inputs(
        "splice",
        runs,
        config.home,
        store=config.store,
        subject=config.subject,
        anywhere=bool(config.inputs),
    )
    return SplicedText(found, choose_text(found, config.inputs, config.limit))


@final
@dataclass(frozen=True)
class Groups:
    """Predictions by the position and the class of the token that is predicted.

    `group_BT` is the group of the prediction that each position makes; -1 where it does not count.
    """

    buckets: Sequence[tuple[int, int]]
    group_BT: Int64[np.ndarray, "b t"]

    @classmethod
    def of(cls, text: JudgedText, subject: LanguageSubject) -> "Groups":
        """Groups of a text; a prediction counts if the position that makes it is kept.

        Raises ConfigError where no prediction counts.
        """
        length = text.tokens_BT.shape[1]
        buckets = position_buckets(length)
        classes_V = token_classes(subject.tokenizer, subject.vocabulary)
        number_BT = bucket_of(length, buckets) * len(CLASSES) + classes_V[text.tokens_BT]
        group_BT = np.full(text.tokens_BT.shape, -1)
        group_BT[:, :-1] = np.where(text.kept_BT[:, :-1], number_BT[:, 1:], -1)
        if not (group_BT >= 0).any():
            raise ConfigError(
                f"the text must have a position to replace that a token follows; {text.source} has "
                "none. Give --inputs more text."
            )
        return cls(buckets, group_BT)

    def __len__(self) -> int:
        return len(self.buckets) * len(CLASSES)

    def parts(self) -> dict[str, dict[str, torch.Tensor]]:
        """The groups of each bucket of positions, and of each class."""
        grid = torch.arange(len(self)).reshape(len(self.buckets), len(CLASSES))
        return {
            "by_position": {f"{a}-{b}": grid[i] for i, (a, b) in enumerate(self.buckets)},
            "by_class": {name: grid[:, i] for i, name in enumerate(CLASSES)},
        }
