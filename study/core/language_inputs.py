"""What a study of a language model works on: runs, their store and its model.

A run knows its store, and a store knows where its model was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from transformers import PreTrainedTokenizerBase

from tendril.data.errors import ConfigError, SubjectError, WeightsError
from tendril.data.store.provenance import identity_in_words, located, same_identity
from tendril.data.store.reader import Store
from tendril.models.dictionaries.checkpoint import read_config
from tendril.models.subjects.language import (
    LanguageSubject,
    language_subject,
    tokenizer_digest,
    tokenizer_of,
)
from tendril.models.subjects.subject import site_modules

from .config import outlier_remark
from .stores import (
    common_site,
    common_store,
    dictionary_digests,
    is_language_run,
    training_warnings,
)


@final
@dataclass(frozen=True)
class LanguageInputs:
    """Runs of one site of a causal language model, their store and the model."""

    runs: tuple[Path, ...]
    site: str
    store: Store
    subject: LanguageSubject

    def remarks(self) -> list[str]:
        """What became of norm outliers that the runs dropped or capped, and what training has
        warned of."""
        found = outlier_remark(read_config(run) for run in self.runs)
        return found + training_warnings(self.runs)

    def identity(self) -> dict[str, Any]:
        """What of these determines findings: dictionaries, site, store and subject."""
        return {
            "subject": dict(self.subject.identity),
            "site": self.site,
            "dictionaries": dictionary_digests(self.runs),
            "store": self.store.name,
        }


def find_language_inputs(
    study: str,
    runs: Sequence[Path],
    home: str,
    *,
    store: str = "",
    subject: str = "",
    anywhere: bool = False,
) -> LanguageInputs:
    """Find the store and the model of some runs, and check that they belong together.

    `anywhere` is as in `common_store`; `study` is named in errors. Raises ConfigError,
    StoreNotFoundError, UnknownSiteError, WeightsError, and SubjectError for a model that predicts
    no next token.
    """
    for run in runs:
        if not is_language_run(run):
            raise ConfigError(
                f"{study} needs a run of a language model; {run.resolve().name} is of a vision "
                "network. Choose another --run."
            )
    site = common_site(runs)
    found = common_store(runs, home, store, anywhere=anywhere)
    model = language_subject_of(found, site, subject)
    check_causal(model, study)
    return LanguageInputs(tuple(runs), site, found, model)


def check_causal(subject: LanguageSubject, study: str) -> None:
    """Raise SubjectError for a model that predicts no next token."""
    if subject.kind != "causal":
        raise SubjectError(
            f"{study} needs a causal model; {subject.name} is an encoder, which predicts no next "
            "token. Choose a run of a causal model."
        )
    if not subject.head:
        raise SubjectError(
            f"{study} needs a model that predicts tokens; the files of {subject.name} lack the "
            "layer that does. Harvest the whole model, and train on that store."
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
            f"the model of {store.name} cannot be found again ({error}). Pass --subject."
        ) from error
    if not same_identity(found.identity, {**store.spec["subject"], "name": found.name}):
        raise WeightsError(
            f"{store.name} was made with {identity_in_words(store.spec['subject'])}; {wanted} is "
            f"{identity_in_words(found.identity)}. Pass --subject with the model that was "
            "harvested."
        )
    if site:
        site_modules(found, [site])
    return found


def tokenizer_of_store(store: Store, subject: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer that cut the text of a store, without the model.

    Raises SubjectError where it cannot be found, and WeightsError where it is another one.
    """
    wanted = subject or located(store.path, store.origin.get("subject", ""))
    try:
        tokenizer = tokenizer_of(wanted)
    except SubjectError as error:
        raise SubjectError(
            f"the tokenizer of {store.name} cannot be found again ({error}). Pass --subject."
        ) from error
    if tokenizer_digest(tokenizer) != store.spec["subject"].get("tokenizer"):
        raise WeightsError(
            f"the text of {store.name} was cut by another tokenizer than that of {wanted}. Pass "
            "--subject with the model that was harvested."
        )
    return tokenizer
