"""The text that language models are judged on: contexts that no run was trained on, or others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64

from tendril.data import order
from tendril.data.cli import progress_bar
from tendril.data.errors import ConfigError
from tendril.data.home import home_folder
from tendril.data.inputs.packing import Cut
from tendril.data.inputs.texts import open_text
from tendril.data.inputs.tokens import TokenSource, contexts_of, tokenised
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import read_config
from tendril.models.sites.language_splice import TokenBatch
from tendril.models.subjects.generate import is_self, written_by
from tendril.models.subjects.language import LanguageSubject
from tendril.models.subjects.pieces import pieces_of
from tendril.models.subjects.tokenise import cut_for, tokens_of

from .language_inputs import LanguageInputs
from .stores import context_shape, held_out_fraction, text_of

TOKENS = "tokens"  # the folder beside store/ that keeps packed text


@final
@dataclass(frozen=True)
class JudgedText:
    """Contexts, and which of their positions are vectors that a dictionary sees.

    `source` says in words where the contexts are from.
    """

    tokens_BT: Int32[np.ndarray, "b t"]
    kept_BT: Bool[np.ndarray, "b t"]
    source: str

    def batches(
        self,
        size: int,
        device: torch.device,
        label: str,
        group_BT: Int64[np.ndarray, "b t"] | None = None,
    ) -> Iterator[TokenBatch]:
        """All contexts once, with a progress bar. Without groups every kept position is in
        group 0."""
        group_BT = np.where(self.kept_BT, 0, -1) if group_BT is None else group_BT
        with progress_bar(total=len(self.tokens_BT), desc=label, unit=" contexts") as bar:
            for start in range(0, len(self.tokens_BT), size):
                part = slice(start, start + size)
                arrays = (self.tokens_BT[part].astype(np.int64), self.kept_BT[part], group_BT[part])
                yield TokenBatch(*(torch.from_numpy(np.array(a)).to(device) for a in arrays))
                bar.update(len(arrays[0]))


@final
@dataclass(frozen=True)
class TextChoice:
    """Which text a study reads: known before any of it is read."""

    inputs: str
    limit: int | None
    fraction: float
    """Held-out fraction of the store's contexts; used where `inputs` is empty."""
    key: Mapping[str, Any]
    """What determines the text, for the report's identity."""
    contexts: int | None
    """Number of contexts, where it is known."""

    def read(self, found: LanguageInputs, home: str, device: torch.device) -> JudgedText:
        """The text. Raises ConfigError where it does not fill one context."""
        if not self.inputs:
            return held_out_text(found.store, self.fraction, self.limit)
        source, cut = _given(self.inputs, found.store, found.subject, self.limit, device)
        contexts = contexts_of(source, cut, self.limit, home_folder(home) / TOKENS)
        rule = found.store.spec["inputs"]
        kept_BT = contexts.kept(range(len(contexts)), rule["skip_special"], rule["skip_first"])
        name = f"the text {Path(self.inputs).name}"
        if is_self(self.inputs):
            name = f"text that {found.subject.name} wrote ({self.inputs})"
        return JudgedText(np.asarray(contexts.tokens_BT), kept_BT, name)


def choose_text(found: LanguageInputs, inputs: str, limit: int | None) -> TextChoice:
    """The text that `inputs` stands for; if empty, the store's contexts that were held out of the
    training of all runs.

    `inputs` is what `open_text` takes, or `self[:SEED]` for text that the model writes. Raises
    ConfigError where no context is held out, and what `open_text` raises.
    """
    if inputs:
        source, _ = _given(inputs, found.store, found.subject, limit, torch.device("cpu"))
        return TextChoice(inputs, limit, 0.0, source.key, None)
    fraction = held_out_fraction([read_config(run) for run in found.runs])
    key = {"store": found.store.name, "held_out": fraction}
    return TextChoice("", limit, fraction, key, len(_held_out(found.store, fraction, limit)))


def held_out_text(store: Store, fraction: float, limit: int | None) -> JudgedText:
    """The contexts of a store that were held out of training at that fraction; at most `limit` of
    them, drawn at random, the same ones each time. The last token before padding is not kept, since
    what follows it is no text. Raises ConfigError where there are none."""
    text = text_of(store)
    chosen = _held_out(store, fraction, limit)
    source = f"held-out contexts of {store.name}"
    kept_BT, documents_BT = text.valid_BT[chosen], text.documents_BT[chosen]
    kept_BT[:, :-1] &= documents_BT[:, 1:] >= 0
    return JudgedText(text.tokens_BT[chosen], kept_BT, source)


def _held_out(store: Store, fraction: float, limit: int | None) -> Int64[np.ndarray, " b"]:
    """The numbers of the contexts of `held_out_text`."""
    count, _ = context_shape(store)
    if store.spec["inputs"].get("packing") == "apart":
        raise ConfigError(
            f"the documents in a context of {store.name} were read apart (--document-mask), and "
            "this study runs the network on whole contexts. Pass --inputs with a text, or harvest "
            "with --pad."
        )
    chosen = np.flatnonzero(order.held_out(np.arange(count), fraction))
    if not len(chosen):
        raise ConfigError(
            f"none of the {count} contexts of {store.name} is held out at a fraction of "
            f"{fraction:g}. Pass --inputs with a text, or harvest more of it."
        )
    return chosen if limit is None else chosen[order.sample(len(chosen), limit, 0)]


def _given(
    inputs: str, store: Store, subject: LanguageSubject, limit: int | None, device: torch.device
) -> tuple[TokenSource, Cut]:
    """A text as tokens, and how it is cut: as the store's was."""
    cut = cut_for(subject, int(store.spec["inputs"].get("context", 0)))
    if is_self(inputs):
        # every document fills a context, so nothing stands between two
        return written_by(subject, inputs, cut.length, limit, device), replace(cut, between=())
    digest = str(subject.identity["tokenizer"])
    return tokenised(open_text(inputs), tokens_of(subject), digest, pieces_of(subject)), cut
