"""What a study of a vision network works on: run, site, subject, store and images.

A run names its store, and a store says where its subject and inputs were. Flags override both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from tendril.data import order
from tendril.data.cli import note
from tendril.data.errors import (
    ConfigError,
    InputsNotFoundError,
    RunNotFoundError,
    SubjectError,
    TendrilError,
    WeightsError,
)
from tendril.data.home import (
    LATEST,
    RUN,
    entries,
    find_run,
    network_place,
    newest,
    runs_folder,
)
from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.provenance import identity_in_words, located, same_identity
from tendril.data.store.reader import BATCH_DEFAULTS, Store
from tendril.models.dictionaries.checkpoint import DICTIONARY, read_config
from tendril.models.sites.dimensions import CLASS, tokens_of
from tendril.models.sites.hooks import describe_sites
from tendril.models.sites.tokens import as_identified, has_tokens, other_tokens, with_tokens
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import MEMORY, Subject, site_modules
from tendril.models.subjects.trust import check_named

from .config import VisionConfig, outlier_remark
from .report import file_digest
from .stores import stored_run, training_warnings


@final
@dataclass(frozen=True)
class VisionInputs:
    """What a study reads. `no_images` says in a sentence why there are no images."""

    subject: Subject
    site: str
    run: Path | None
    store: Store | None
    images: ImageSource | None
    no_images: str
    grid: tuple[int, ...] = ()
    """Rows and columns of the site's map; (T, 1) for T tokens."""
    tokens: bool = False
    """True if the site holds the tokens of a vision transformer."""

    @property
    def run_name(self) -> str:
        """The run's name; empty without a run."""
        return self.run.resolve().name if self.run else ""

    def remarks(self) -> list[str]:
        """What a reader must know: tokens, examples that are training inputs, norm outliers."""
        found = [token_remark(self)] if self.tokens else []
        if self.run is None:
            return found
        trained = read_config(self.run)
        if self.images is not None and self.store is not None:
            found += training_remark(self.store, trained)
        found += outlier_remark([trained]) if self.store else []
        return found + training_warnings([self.run])

    def identity(self) -> dict[str, Any]:
        """What of these determines findings: subject, site, dictionary and store."""
        return {
            "subject": dict(self.subject.identity),
            "site": self.site,
            "run": self.run_name,
            "dictionary": file_digest(self.run / DICTIONARY) if self.run else None,
            "store": self.store.name if self.store else None,
            "images": self.images is not None,
        }


def find_vision_inputs(
    config: VisionConfig, run: str, site: str = "", *, images: bool = True, field_for: str = ""
) -> VisionInputs:
    """Find run, store, subject and images, and check that they belong together.

    `field_for` names a study that shows a network patches as large as a receptive field: sites of
    tokens are refused.

    `run` is a name that `find_run` knows, or empty for units only. With `site` or
    `config.subject`, `latest` is the latest run that fits them. Raises RunNotFoundError,
    StoreNotFoundError, UnknownSiteError, what `load_subject` raises, ConfigError for a site that
    is not the run's, and WeightsError where the subject is not the one that the run or the store
    was made with.
    """
    given = _given_subject(config) if config.subject else None
    folder = _choose_run(config, run, site, given)
    trained = read_config(folder) if folder else {}
    store = _find_store(config, folder, trained)
    if store is not None and store.spec["inputs"].get("kind") == "synthetic":
        raise ConfigError(
            f"the store must be of activations of a network; no network made the rows of "
            f"{store.name}. `tendril study scaling` and `compare` work without one."
        )
    subject = given or _subject_of(config, folder, store)
    identity = trained.get("subject") or (store.spec["subject"] if store else None)
    subject = as_identified(subject, identity)
    _check_subject(subject, folder, trained, store)
    chosen = site or trained.get("site") or (store.sites[0] if store else "")
    if not chosen:
        raise ConfigError('--run "" studies units only and needs a --site, e.g. mixed3b.')
    if trained and trained["site"] != chosen:
        raise ConfigError(
            f"--site must be {trained['site']}, the site of the run {folder.name if folder else ''}"
            f'; got {chosen!r}. Leave --site out, choose another --run, or pass --run "" for units '
            "only."
        )
    site_modules(subject, [chosen])
    if identity is None:
        subject = with_tokens(subject, "auto", [chosen])
    tokens = has_tokens(subject, chosen)
    if field_for and tokens:
        raise SubjectError(_no_field(field_for, subject, chosen, folder))
    source, reason = _find_images(config, store, chosen) if images else (None, NOT_ASKED)
    grid = _grid(subject, store, chosen)
    return VisionInputs(subject, chosen, folder, store, source, reason, grid, tokens)


def whole_images(inputs: VisionInputs) -> VisionInputs:
    """The inputs, without images if the rows of the store are of turned patches: what a row of an
    orbit shows cannot be cut from an image."""
    if inputs.store is None or inputs.images is None or inputs.store.group is None:
        return inputs
    reason = (
        f"There are no dataset examples, because the rows of {inputs.store.name} are of turned "
        "patches; pass --store with a store of whole images."
    )
    return replace(inputs, images=None, no_images=reason)


def _no_field(name: str, subject: Subject, site: str, run: Path | None) -> str:
    """Why a study of receptive fields refuses a site of tokens, and what works instead."""
    works = "Choose a convolutional site, such as the patch embedding"
    if run:
        works = (
            f"`tendril study features --run {run.resolve().name}` shows the images and patches "
            "where its latents are active; compare, and splice of a classifier, work too"
        )
    return (
        f"study {name} needs a site whose vectors depend on a part of the image; {site} of "
        f"{subject.name} holds tokens, each of which depends on the whole image. {works}."
    )


def _grid(subject: Subject, store: Store | None, site: str) -> tuple[int, ...]:
    """Rows and columns of a site's map: the store's, or those of one forward pass."""
    if store is not None and site in store.sites and store.grid(site):
        return store.grid(site)
    return describe_sites(subject, [site])[site].grid


def token_remark(inputs: VisionInputs) -> str:
    """Which of a site's tokens are studied."""
    site, (rows, columns), subject = inputs.site, inputs.grid, inputs.subject
    keep, others = tokens_of(subject.module).keep, other_tokens(subject)
    if keep == "patches":
        rest = f" The other tokens ({others}) are left as they are." if others else ""
        return (
            f"{site} holds tokens: the {rows} x {columns} patches are studied, and each of them "
            f"depends on the whole image.{rest}"
        )
    if keep == CLASS:
        return f"{site} holds tokens: only its class token is studied."
    return f"{site} holds {rows} tokens; all of them are studied, and each is a row like any other."


def training_remark(store: Store, trained: Mapping[str, Any]) -> list[str]:
    """How many of the inputs that examples are drawn from a run was trained on."""
    if trained.get("store") != store.name:
        return [
            f"Examples are drawn from all inputs of {store.name}. Whether the run was trained on "
            f"some of them is not known: its own store is {trained.get('store') or 'not recorded'}."
        ]
    count = int(store.spec["inputs"].get("count", 0))
    aside = order.held_out(
        np.arange(count), float(trained.get("held_out", BATCH_DEFAULTS["held_out"]))
    )
    return [
        f"Examples are drawn from all {count:,} inputs of {store.name}, {int((~aside).sum()):,} of "
        "which the run was trained on."
    ]


NOT_ASKED = "No dataset examples were asked for."


def _check_subject(
    subject: Subject, run: Path | None, trained: Mapping[str, Any], store: Store | None
) -> None:
    for owner, identity in (
        (f"the run {run.name if run else ''}", trained.get("subject")),
        (f"the store {store.name if store else ''}", store.spec["subject"] if store else None),
    ):
        if identity is not None and not same_identity(identity, subject.identity):
            raise WeightsError(
                f"{owner} was made with {identity_in_words(identity)}; this subject is "
                f"{identity_in_words(subject.identity)}. Give the same --subject, --weights and "
                "--normalisation, or another --run."
            )


def _choose_run(config: VisionConfig, run: str, site: str, given: Subject | None) -> Path | None:
    """The run; `latest` is the latest one that fits the site and the subject given, if any."""
    if not run:
        return None
    if run != LATEST or not (site or given):
        return find_run(run, config.home)
    folder = runs_folder(config.home)
    fitting = []
    for path in entries(folder, RUN.marker):
        trained = read_config(path)
        same_site = not site or trained["site"] == site
        made_with = trained["subject"]
        if same_site and (
            given is None or same_identity(made_with, as_identified(given, made_with).identity)
        ):
            fitting.append(path)
    if fitting:
        return newest(fitting, RUN.marker)
    if given is None:
        raise RunNotFoundError(
            f"no run in {folder} was trained on {site!r}. Train one, or pass --subject too to "
            "study its units only."
        )
    note(f"no run in {folder} fits {given.name} {site}; only its units are studied.")
    return None


def _find_store(config: VisionConfig, run: Path | None, trained: Mapping[str, Any]) -> Store | None:
    """The store given, or the run's own if it can still be found."""
    if config.store or run:
        return stored_run(run, trained, config.store, config.home)
    return None


def _given_subject(config: VisionConfig) -> Subject:
    return load_subject(
        network_place(config.subject, config.home),
        weights=config.weights,
        normalisation=config.normalisation or "auto",
    )


def _subject_of(config: VisionConfig, run: Path | None, store: Store | None) -> Subject:
    """The subject that the store was harvested from, where it was then."""
    if store is None:
        missing = f"the store of {run} is gone" if run else "no run and no store name one"
        raise SubjectError(
            f"the study needs a subject, and {missing}. Pass --subject, and --weights for "
            "inceptionv1."
        )
    origin = store.origin
    if "subject" not in origin:
        raise SubjectError(
            f"the store {store.name} does not say which subject it was harvested from. Pass "
            "--subject, and --weights for inceptionv1."
        )
    hint = located(store.path, origin["subject"])
    if hint.startswith(MEMORY):
        return load_subject(hint)
    check_named(hint, store.path, store.spec["subject"], [run] if run else [])
    try:
        return load_subject(
            hint,
            weights=config.weights or located(store.path, origin.get("weights", "")),
            normalisation=config.normalisation or origin.get("normalisation") or "auto",
        )
    except (FileNotFoundError, SubjectError) as error:
        raise SubjectError(
            f"the subject of {store.name} cannot be found again ({error}). Pass --subject, and "
            "--weights for inceptionv1."
        ) from error


def _find_images(
    config: VisionConfig, store: Store | None, site: str
) -> tuple[ImageSource | None, str]:
    """The images of a store, or a sentence that says what to pass."""
    if store is None:
        return None, (
            "There are no dataset examples, because no store of this subject was given; pass "
            "--store with one that was harvested at this site."
        )
    if site not in store.sites:
        return None, (
            f"There are no dataset examples, because the store {store.name} does not hold "
            f"{site}; pass --store with one that does."
        )
    inputs = config.inputs or located(store.path, store.origin.get("inputs", ""))
    count = int(store.spec["inputs"]["count"])
    try:
        images = open_images(inputs, count)
        same = are_harvested(images, store.spec["inputs"])
    except TendrilError as error:
        if config.inputs:
            raise
        return None, (
            f"There are no dataset examples, because the harvested images cannot be found again "
            f"({error}); pass --inputs with the folder or set that was harvested."
        )
    if not same:
        reason = f"{inputs} does not hold the images that {store.name} was harvested from"
        if config.inputs:
            raise InputsNotFoundError(f"{reason}; pass --inputs with those.")
        return None, f"There are no dataset examples, because {reason}; pass --inputs with those."
    return images, ""


def are_harvested(images: ImageSource, taken: Mapping[str, Any]) -> bool:
    """True if images are those that a store was harvested from, by the entry `taken` of its spec.

    Those that a program held are compared by their pixels.
    """
    # what was done to the images is in the identity of the store's inputs, but not in theirs
    done = {"size": taken.get("size")} | {k: taken[k] for k in ("orbit",) if k in taken}
    if same_identity(taken, {**images.identity, **done}):
        return True
    if taken.get("kind") != "memory" or images.identity["kind"] == "memory":
        return False
    from tendril.data.inputs.memory import as_shown  # seldom used

    return same_identity(taken, {**as_shown(images, taken), **done})
