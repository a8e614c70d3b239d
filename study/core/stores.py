"""The store that a run was trained on: where it was then, in the home, or where a flag says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tendril.data.errors import RunDamagedError, StoreNotFoundError
from tendril.data.home import SCHEME, STORE, find_store, folder_of
from tendril.data.store.reader import Store, open_store
from tendril.models.dictionaries.checkpoint import read_config


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


def trained_sites(run: Path, store: Store, width: int) -> tuple[str, ...]:
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
