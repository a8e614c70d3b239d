"""Runs, the stores that they were trained on, and the text that a store holds.

A store holds its text token by token where every position became a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int, Int32

from tendril.data import order
from tendril.data.errors import ConfigError, RunDamagedError, StoreNotFoundError
from tendril.data.home import SCHEME, STORE, find_store, folder_of
from tendril.data.store.moments import OUTLIER_TIMES
from tendril.data.store.paired import PairedStores, check_aligned
from tendril.data.store.reader import BATCH_DEFAULTS, Store, open_store
from tendril.models.dictionaries.checkpoint import DICTIONARY, RESULT, read_config, read_figures

from .config import outlier_remark
from .report import file_digest

MOST_WARNINGS = 6
"""Of more warnings a page shows the first alone."""


def store_of_run(run: Path, home: str, store: str = "") -> Store:
    """The store that a run was trained on, or the one named. Raises StoreNotFoundError."""
    trained = read_config(run)
    found = stored_run(run, trained, store, home)
    if found is None:
        raise StoreNotFoundError(
            f"the store {trained.get('store', '')} of the run {run.name} is neither where it was "
            f"nor in {folder_of(STORE, home)}. Pass --store with its path, or harvest it again."
        )
    return found


def training_warnings(runs: Iterable[Path]) -> list[str]:
    """What training has warned of, as result.json of the runs says: remarks for their readers.

    Of many warnings the first stands for all.
    """
    found = [
        (run.name, text)
        for run in runs
        if (run / RESULT).is_file()
        for text in read_figures(run).get("warnings", [])
    ]
    if len(found) > MOST_WARNINGS:
        (name, text), warned = found[0], len({name for name, _ in found})
        return [
            f"Training of {warned} runs has warned, e.g. that of {name}: {text} All warnings stand "
            "in result.json of the runs."
        ]
    return [f"Training of {name} has warned: {text}" for name, text in found]


def rows_of_run(run: Path, store: Store, home: str) -> Store | PairedStores:
    """What a run reads: its store, or both stores as one for a crosscoder of two networks.

    Raises StoreNotFoundError where the second store is gone, and ConfigError where it does not fit
    the first one.
    """
    trained = read_config(run)
    if not trained.get("paired_store"):
        return store
    second = {"store": trained["paired_store"], "store_path": trained.get("paired_store_path")}
    paired = stored_run(run, second, "", home)
    if paired is None:
        raise StoreNotFoundError(
            f"the second store {second['store']} of the run {run.name} is neither where it was nor "
            f"in {folder_of(STORE, home)}. Harvest it again."
        )
    check_aligned(store, paired)
    parts = list(trained.get("sites") or ())
    theirs = len(trained.get("paired_sites") or parts[len(parts) // 2 :])
    first = len(parts) - theirs
    return PairedStores(
        {
            part: (store if place < first else paired, part.rpartition(":")[2])
            for place, part in enumerate(parts)
        }
    )


def trained_sites(run: Path, store: Store | PairedStores, width: int) -> tuple[str, ...]:
    """The sites that a run was trained on. Raises RunDamagedError where their vectors in the store
    are not of the dictionary's `width`."""
    trained = read_config(run)
    sites = tuple(trained.get("sites") or (trained["site"],))
    stored = sum(store.width(site) for site in sites)
    if stored != width:
        raise RunDamagedError(
            f"the dictionary of {run.name} takes vectors of width {width}; {' + '.join(sites)} of "
            f"{store.name} has {stored}. Pass --store with the store that it was trained on."
        )
    return sites


def stored_run(run: Path | None, trained: Mapping[str, Any], store: str, home: str) -> Store | None:
    """The store named, or that of a run; None where the run's store is gone.

    A run's config.json names its store, and says where it was relative to the run's folder.
    """
    if store:
        return open_store(find_store(store, home))
    path = str(trained.get("store_path", ""))
    if SCHEME in path:
        return open_store(path)
    if run is None:
        return None
    places = [run / path, folder_of(STORE, home) / str(trained.get("store", ""))]
    found = next((p for p in places if (p / STORE.marker).is_file()), None)
    return open_store(found) if found else None


def common_store(runs: Sequence[Path], home: str, store: str, *, anywhere: bool = False) -> Store:
    """The store that all runs were trained on, or the one named.

    With `anywhere` none of its rows are read, and stores may differ: the first run's is taken.
    Raises StoreNotFoundError, and ConfigError where stores differ.
    """
    found = {run.name: store_of_run(run, home, store) for run in runs}
    names = {one.name for one in found.values()}
    if len(names) > 1 and not anywhere:
        raise ConfigError(
            f"the runs must be trained on one store; got {', '.join(sorted(names))}, whose "
            "held-out contexts differ. Pass --store with the one to read, or (splice) a text with "
            "--inputs."
        )
    return next(iter(found.values()))


def common_site(runs: Sequence[Path]) -> str:
    """The site that all runs were trained on.

    Raises ConfigError where sites differ, or where a dictionary does not take single vectors of
    one site: a crosscoder of several sites, or one over a group.
    """
    trained = {run.name: read_config(run) for run in runs}
    for name, config in trained.items():
        if len(config.get("sites") or ()) > 1:
            raise ConfigError(
                f"{name} is a crosscoder of the sites {', '.join(config['sites'])}; this study "
                "replaces vectors of one site. Choose a dictionary of one site."
            )
        if config.get("group"):
            raise ConfigError(
                f"{name} is a crosscoder over a group, which takes the vectors of all turned "
                "copies of an input; this study replaces single vectors. Choose a dictionary of "
                "single vectors."
            )
    sites = {name: str(config["site"]) for name, config in trained.items()}
    if len(set(sites.values())) > 1:
        listed = ", ".join(f"{site} ({name})" for name, site in sites.items())
        raise ConfigError(f"the runs must be of one site; got {listed}. Study each site by itself.")
    return next(iter(sites.values()))


def is_language_run(run: Path) -> bool:
    """True if a run was trained on activations of a language model."""
    return "tokenizer" in (read_config(run).get("subject") or {})


def dictionary_digests(runs: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each run's dictionary, by the run's name."""
    return {run.resolve().name: file_digest(run / DICTIONARY) for run in runs}


def held_out_fraction(trained: Sequence[Mapping[str, Any]]) -> float:
    """The fraction of the inputs that was held out of the training of all runs.

    Held-out sets are nested, so it is the least of the runs' own.
    """
    return min(float(one.get("held_out", BATCH_DEFAULTS["held_out"])) for one in trained)


def held_out_rows(store: Store, fraction: float, count: int) -> Int[np.ndarray, " n"]:
    """Valid rows of inputs that were held out of training, drawn with a fixed seed; of all inputs
    where these are too few."""
    valid = np.flatnonzero(store.column("valid"))
    aside = valid[order.held_out(store.column("input")[valid], fraction)]
    rows = aside if len(aside) >= count else valid
    chosen = order.sample(len(rows), count, 0) if len(rows) > count else np.arange(len(rows))
    found: np.ndarray = np.sort(rows[chosen])
    return found


@final
@dataclass(frozen=True)
class StoredText:
    """The contexts of a store: tokens, the document of each, and which became valid rows.

    Row r of the store is context r // T, position r % T.
    """

    tokens_BT: Int32[np.ndarray, "b t"]
    documents_BT: Int32[np.ndarray, "b t"]
    valid_BT: Bool[np.ndarray, "b t"]


def text_of(store: Store) -> StoredText:
    """The text that a store was harvested from.

    Raises ConfigError where the store holds no text, or only some positions of it.
    """
    shape = context_shape(store)
    return StoredText(
        store.column("token").reshape(shape),
        store.column("document").reshape(shape),
        store.column("valid").reshape(shape),
    )


def without_dropped(
    text: StoredText, store: Store | PairedStores, sites: Sequence[str], trained: Mapping[str, Any]
) -> StoredText:
    """The text without the rows that a run's training dropped as norm outliers."""
    if trained.get("norm_outliers") != "drop":
        return text
    times = float(trained.get("outlier_times", OUTLIER_TIMES))
    dropped = np.logical_or.reduce([store.norm_outliers(site, times) for site in sites])
    return replace(text, valid_BT=text.valid_BT & ~dropped.reshape(text.valid_BT.shape))


def text_remarks(
    store: Store, text: StoredText, trained: Mapping[str, Any], part: str = "all"
) -> list[str]:
    """What a reader must know of examples of a text: how many contexts a run was trained on, and
    what became of norm outliers."""
    found = outlier_remark([trained], dropped=True)
    if trained.get("store") != store.name:
        return [
            f"Whether the run was trained on some contexts of {store.name} is not known: its own "
            f"store is {trained.get('store') or 'not recorded'}.",
            *found,
        ]
    count = len(text.tokens_BT)
    fraction = float(trained.get("held_out", BATCH_DEFAULTS["held_out"]))
    seen = int((~order.held_out(np.arange(count), fraction)).sum())
    if part == "all":
        found = [
            f"Figures and examples are of all {count:,} contexts of {store.name}, {seen:,} of "
            "which the run was trained on.",
            *found,
        ]
    elif part == "train":
        found = ["Figures and examples are of contexts that the run was trained on.", *found]
    return found


def context_shape(store: Store) -> tuple[int, int]:
    """Number and length of a store's contexts. Raises ConfigError as `text_of` does."""
    inputs = store.spec["inputs"]
    if inputs.get("kind") != "text":
        raise ConfigError(
            f"the store must hold text; {store.name} holds "
            f"{inputs.get('kind', 'no known kind of inputs')} and no text. Give a run of a store "
            "that `tendril harvest language` made."
        )
    if store.spec["positions"]["rule"] != "all":
        raise ConfigError(
            f"the store must hold its whole text; {store.name} holds some positions of each "
            "context only. Harvest the text with --per-input all."
        )
    return int(inputs["contexts"]), int(inputs["context"])
