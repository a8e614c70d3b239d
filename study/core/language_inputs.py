"""What a study of a language model works on: runs, their store, its model, its text.

A run knows its store; a store knows where its model was, and holds the text itself, token by
token, where every position became a row.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Int32
from transformers import PreTrainedTokenizerBase

from tendril.data.errors import ConfigError, SubjectError, WeightsError
from tendril.data.store.provenance import identity_in_words, located, same_identity
from tendril.data.store.reader import Store
from tendril.models.subjects.language import (
    LanguageSubject,
    language_subject,
    tokenizer_digest,
    tokenizer_of,
)
from tendril.models.subjects.subject import site_modules


@final
@dataclass(frozen=True)
class StoredText:
    """The contexts of a store: tokens, the document of each, and which became valid rows.

    Row number r of the store is context r // T, position r % T.
    """

    tokens_BT: Int32[np.ndarray, "b t"]
    documents_BT: Int32[np.ndarray, "b t"]
    valid_BT: Bool[np.ndarray, "b t"]


def text_of(store: Store) -> StoredText:
    """The text that a store was harvested from. Raises ConfigError where it holds no text, or
    only some positions of it."""
    inputs = store.spec["inputs"]
    if inputs.get("kind") != "text":
        raise ConfigError(
            f"{store.name} holds {inputs.get('kind', 'no known kind of inputs')} and no text; give "
            "the run of a store that `tendril harvest language` made."
        )
    if store.spec["positions"]["rule"] != "all":
        raise ConfigError(
            f"{store.name} holds some positions of each context only, so its text cannot be read "
            "off it; harvest it with --per-input all."
        )
    shape = (int(inputs["contexts"]), int(inputs["context"]))
    return StoredText(
        store.column("token").reshape(shape),
        store.column("document").reshape(shape),
        store.column("valid").reshape(shape),
    )


def language_subject_of(store: Store, site: str = "", subject: str = "") -> LanguageSubject:
    """The language model that a store was harvested from: where it was, or where `subject` says.

    Raises SubjectError where it cannot be found, WeightsError where it is another one, and
    UnknownSiteError.
    """
    wanted = subject or located(store.path, store.origin.get("subject", ""))
    try:
        found = language_subject(wanted, store.spec["subject"].get("compute", "float32"))
    except SubjectError as error:
        raise SubjectError(
            f"the model of {store.name} cannot be found again ({error}); pass --subject."
        ) from error
    if not same_identity(found.identity, {**store.spec["subject"], "name": found.name}):
        raise WeightsError(
            f"{store.name} was made with {identity_in_words(store.spec['subject'])}; {wanted} is "
            f"{identity_in_words(found.identity)}; give the --subject that was harvested."
        )
    if site:
        site_modules(found, [site])
    return found


def tokenizer_of_store(store: Store, subject: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer that cut the text of a store, without the model. Raises SubjectError where it
    cannot be found, WeightsError where it is another one."""
    wanted = subject or located(store.path, store.origin.get("subject", ""))
    try:
        tokenizer = tokenizer_of(wanted)
    except SubjectError as error:
        raise SubjectError(
            f"the tokenizer of {store.name} cannot be found again ({error}); pass --subject."
        ) from error
    if tokenizer_digest(tokenizer) != store.spec["subject"].get("tokenizer"):
        raise WeightsError(
            f"the text of {store.name} was cut by another tokenizer than that of {wanted}; give "
            "the --subject that was harvested."
        )
    return tokenizer
