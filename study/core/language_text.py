"""The text that language models are judged on: contexts that no run was trained on, or others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64
from tqdm import tqdm

from tendril.data import order
from tendril.data.errors import ConfigError, SubjectError
from tendril.data.home import home_folder
from tendril.data.inputs.texts import open_text
from tendril.data.inputs.tokens import contexts_of, tokenised
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.sites.language_splice import TokenBatch
from tendril.models.subjects.generate import is_self, written_by
from tendril.models.subjects.language import LanguageSubject, cut_for, tokens_of

from .language_inputs import text_of

TOKENS = "tokens"  # the folder beside store/ that keeps packed text


@final
@dataclass(frozen=True)
class JudgedText:
    """Contexts, which of their positions are rows a dictionary sees, and where they are from."""

    tokens_BT: Int32[np.ndarray, "b t"]
    kept_BT: Bool[np.ndarray, "b t"]
    source: str

    def batches(
        self,
        size: int,
        device: torch.device,
        what: str,
        group_BT: Int64[np.ndarray, "b t"] | None = None,
    ) -> Iterator[TokenBatch]:
        """All contexts once, with a bar. Without groups every kept position counts alike."""
        group_BT = np.where(self.kept_BT, 0, -1) if group_BT is None else group_BT
        with tqdm(total=len(self.tokens_BT), desc=what, unit=" contexts") as bar:
            for start in range(0, len(self.tokens_BT), size):
                part = slice(start, start + size)
                arrays = (self.tokens_BT[part].astype(np.int64), self.kept_BT[part], group_BT[part])
                yield TokenBatch(*(torch.from_numpy(np.array(a)).to(device) for a in arrays))
                bar.update(len(arrays[0]))


def held_out_share(trained: Sequence[Mapping[str, Any]]) -> float:
    """The share of the inputs that all of some runs kept out of training: shares are nested, so
    it is the least."""
    return min(float(one.get("held_out", BATCH_DEFAULTS["held_out"])) for one in trained)


def held_out_text(store: Store, share: float, limit: int | None) -> JudgedText:
    """The contexts of a store that training at that share never saw; so many of them at random,
    the same ones each time. Raises ConfigError where there are none."""
    text = text_of(store)
    wanted = np.flatnonzero(order.held_out(np.arange(len(text.tokens_BT)), share))
    if not len(wanted):
        raise ConfigError(
            f"of the {len(text.tokens_BT)} contexts of {store.name} none is held out at a share of "
            f"{share:g}; pass --inputs with a text, or harvest more of it."
        )
    if limit is not None:
        wanted = wanted[order.sample(len(wanted), limit, 0)]
    source = f"held-out contexts of {store.name}"
    return JudgedText(text.tokens_BT[wanted], text.valid_BT[wanted], source)


def given_text(
    inputs: str,
    store: Store,
    subject: LanguageSubject,
    limit: int | None,
    home: str,
    device: torch.device,
) -> JudgedText:
    """A text cut as the store's was, or (`self[:SEED]`) written by the model."""
    told = store.spec["inputs"]
    cut = cut_for(subject, int(told.get("context", 0)))
    if is_self(inputs):
        source = written_by(subject, inputs, cut.length, limit, device)
        cut = replace(cut, between=())  # every document fills a context
    else:
        digest = str(subject.identity["tokenizer"])
        source = tokenised(open_text(inputs), tokens_of(subject), digest)
    contexts = contexts_of(source, cut, limit, home_folder(home) / TOKENS)
    everything = range(len(contexts))
    kept_BT = contexts.kept(everything, told["skip_special"], told["skip_first"])
    return JudgedText(np.asarray(contexts.tokens_BT), kept_BT, f"the text {Path(inputs).name}")


def check_causal(subject: LanguageSubject, what: str) -> None:
    """Raise SubjectError for a model that predicts no next token."""
    if subject.kind != "causal":
        raise SubjectError(
            f"{what} asks for the next token, and {subject.name} is an encoder, which predicts "
            "none; choose a run of a causal model."
        )
