"""What a study works on: which run, of which site of which subject, with which inputs.

A run knows its store, and a store says where its subject and its inputs were; flags go first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tendril.data.cli import note
from tendril.data.errors import (
    ConfigError,
    InputsNotFoundError,
    RunNotFoundError,
    StoreNotFoundError,
    SubjectError,
    TendrilError,
    WeightsError,
)
from tendril.data.home import LATEST, SCHEME, entries, find_run, resolve, runs_folder, stores_folder
from tendril.data.inputs.images import ImageSource, open_images
from tendril.data.store.provenance import identity_in_words, located, same_identity
from tendril.data.store.reader import Store, open_store
from tendril.models.dictionaries.checkpoint import DICTIONARY, read_config
from tendril.models.subjects.load import load_subject
from tendril.models.subjects.subject import Subject, site_modules

from ..curves.config import CurvesConfig

STORE_FILE = "zarr.json"


@dataclass(frozen=True)
class Sources:
    """All that a study reads. `no_images` says in a sentence why there are no images."""

    subject: Subject
    site: str
    run: Path | None
    store: Store | None
    images: ImageSource | None
    no_images: str


def find_sources(config: CurvesConfig) -> Sources:
    """Find run, store, subject and inputs, and check that they belong together.

    Raises RunNotFoundError, StoreNotFoundError, UnknownSiteError, what `load_subject` raises,
    ConfigError for a site that is not the run's, and WeightsError where the subject is not the
    one that the run or the store was made with.
    """
    flagged = _flagged_subject(config) if config.subject else None
    run = _choose_run(config, flagged)
    trained = read_config(run) if run else {}
    store = find_store(config, run, trained)
    subject = flagged or _subject_of(config, run, store)
    for whose, identity in (
        (f"the run {run.name if run else ''}", trained.get("subject")),
        (f"the store {store.name if store else ''}", store.spec["subject"] if store else None),
    ):
        if identity is not None and not same_identity(identity, subject.identity):
            raise WeightsError(
                f"{whose} was made with {identity_in_words(identity)}, and this subject is "
                f"{identity_in_words(subject.identity)}; give the same --subject, --weights and "
                f"--normalisation, or another --run."
            )
    site = config.site or trained.get("site") or (store.sites[0] if store else "")
    if not site:
        raise ConfigError('--run "" studies units only and needs a --site, e.g. mixed3b.')
    if trained and trained["site"] != site:
        raise ConfigError(
            f"the run {run.name if run else ''} was trained on {trained['site']}, and not on "
            f'{site!r}; leave --site out, choose another --run, or pass --run "" for units only.'
        )
    site_modules(subject, [site])
    images, no_images = _find_images(config, store, site)
    return Sources(subject, site, run, store, images, no_images)


def _choose_run(config: CurvesConfig, flagged: Subject | None) -> Path | None:
    """The run asked for; `latest` is the latest one that fits --subject and --site, if given."""
    if not config.run:
        return None
    if config.run != LATEST or not (config.site or flagged):
        return find_run(config.run, config.home)
    folder = runs_folder(config.home)
    fitting = []
    for path in entries(folder, DICTIONARY):
        trained = read_config(path)
        same_site = not config.site or trained["site"] == config.site
        if same_site and (flagged is None or same_identity(trained["subject"], flagged.identity)):
            fitting.append(path)
    if fitting:
        return max(fitting, key=lambda path: (path / DICTIONARY).stat().st_mtime_ns)
    if flagged is None:
        raise RunNotFoundError(
            f"no run in {folder} was trained on {config.site!r}; train one, or pass --subject "
            f"too to study its units only."
        )
    note(f"no run in {folder} fits {flagged.name} {config.site}: its units only are studied.")
    return None


def find_store(config: CurvesConfig, run: Path | None, trained: Mapping[str, Any]) -> Store | None:
    """The store given, or the run's own where it still is."""
    folder = stores_folder(config.home)
    told = config.store or trained.get("store_path", "")
    if SCHEME in told:
        return open_store(told)
    if config.store:
        path = resolve(config.store, folder, STORE_FILE)
        if path is None:
            names = [p.name for p in entries(folder, STORE_FILE)]
            raise StoreNotFoundError(
                f"there is no store {config.store!r}, as a path or in {folder} "
                f"({', '.join(names) or 'it holds none'}); check --store."
            )
        return open_store(path)
    if run is None:
        return None
    places = [run / trained.get("store_path", ""), folder / trained.get("store", "")]
    found = next((p for p in places if (p / STORE_FILE).is_file()), None)
    return open_store(found) if found else None


def _flagged_subject(config: CurvesConfig) -> Subject:
    return load_subject(
        config.subject, weights=config.weights, normalisation=config.normalisation or "auto"
    )


def _subject_of(config: CurvesConfig, run: Path | None, store: Store | None) -> Subject:
    """The subject that the store was harvested from, where it was then."""
    if store is None:
        missing = f"the store of {run} is gone" if run else "no run and no store say which it is"
        raise SubjectError(
            f"the study needs a subject, and {missing}; pass --subject, and --weights for "
            "inceptionv1."
        )
    origin = store.origin
    try:
        return load_subject(
            located(store.path, origin["subject"]),
            weights=config.weights or located(store.path, origin["weights"]),
            normalisation=config.normalisation or origin.get("normalisation") or "auto",
        )
    except (FileNotFoundError, SubjectError) as error:
        raise SubjectError(
            f"the subject of {store.name} cannot be found again ({error}); pass --subject, and "
            "--weights for inceptionv1."
        ) from error


def _find_images(
    config: CurvesConfig, store: Store | None, site: str
) -> tuple[ImageSource | None, str]:
    """The images of a store, or a sentence that says what to pass."""
    if config.examples == 0:
        return None, "No dataset examples were asked for."
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
        # what was done to the images is in the identity of the store's inputs, but not in theirs
        taken = store.spec["inputs"]
        done = {"size": taken.get("size")} | {k: taken[k] for k in ("orbit",) if k in taken}
        same = same_identity(taken, {**images.identity, **done})
    except TendrilError as error:
        if config.inputs:
            raise
        return None, (
            f"There are no dataset examples, because the harvested images cannot be found again "
            f"({error}); pass --inputs with the folder or set that was harvested."
        )
    if not same:
        told = f"{inputs} does not hold the images that {store.name} was harvested from"
        if config.inputs:
            raise InputsNotFoundError(f"{told}; pass --inputs with those.")
        return None, f"There are no dataset examples, because {told}; pass --inputs with those."
    return images, ""
