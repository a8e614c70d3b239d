"""What rows of text are like: tokens, positions, and what the model predicts from them."""

import numpy as np
import torch
from jaxtyping import Float, Int

from tendril.data.cli import note
from tendril.data.errors import TendrilError
from tendril.data.store.reader import Store

from ..core.language_inputs import language_subject_of, tokenizer_of_store
from ..core.token_classes import CLASSES, token_classes
from ..core.token_text import readable

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def text_rows(
    store: Store,
    site: str,
    rows: Int[np.ndarray, " n"],
    subject: str,
    norm_N: Float[np.ndarray, " n"],
) -> tuple[
    dict[str, Float[np.ndarray, " n"]],
    dict[str, tuple[Int[np.ndarray, " n"], tuple[str, ...]]],
    Float[np.ndarray, "v d"] | None,
]:
    """Values, groups and the unembedding of rows of text, as `traits.Rows` has them."""
    tokens_N = store.column("token")[rows].astype(np.int64)
    values = {"position": store.column("position")[rows].astype(float), "norm": norm_N}
    tokenizer = tokenizer_of_store(store, subject)
    known, at_N = np.unique(tokens_N, return_inverse=True)
    first = [LETTERS.find(piece.strip()[:1].lower()) if piece.strip() else -1
             for piece in readable(tokenizer, known.tolist())]  # fmt: skip
    classes = token_classes(tokenizer, int(known.max()) + 1)[known]
    groups = {
        "first letter": (np.array(first)[at_N], tuple(LETTERS)),
        "token class": (classes[at_N], CLASSES),
    }
    return values, groups, _unembedding(store, site, subject)


def _unembedding(store: Store, site: str, subject: str) -> Float[np.ndarray, "v d"] | None:
    """The rows of a causal model's unembedding; None for another model, or one that is gone."""
    try:
        model = language_subject_of(store, site, subject)
    except TendrilError as error:
        note(f"the unembedding is left out: {error}")
        return None
    if model.kind != "causal" or not model.unembed:
        return None
    weight = model.module.get_submodule(model.unembed).weight
    if not isinstance(weight, torch.Tensor) or weight.shape[1] != store.width(site):
        return None
    found: np.ndarray = weight.detach().double().cpu().numpy()
    return found
