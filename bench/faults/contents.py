"""What a home holds and what is read from it, as digests that can be compared.

Files are compared by their bytes. Only where these differ, times are left out of the comparison:
nothing else may differ between two runs of the same commands.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tendril.data.listing.describe import describe
from tendril.data.listing.entries import find_entry
from tendril.data.store.reader import Store, open_store
from tendril.data.store.verify import verify_store
from tendril.models.dictionaries.checkpoint import RESULT, STATE, load_frequency
from tendril.models.dictionaries.run import load_run

from ..snapshot_digests import parts_of, short, stable
from .home import files_below

Contents = dict[str, str]
INDEX = "reports/index.html"  # shows when reports were written
DATE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d")


def contents(folder: Path, *below: str) -> Contents:
    """Each file below parts of a folder, by its path, with the digest of what it holds.

    The state of training of a finished run counts as a file, but not what it holds: nothing reads
    it again.
    """
    places = [folder / name for name in below] or [folder]
    return {
        path.relative_to(folder).as_posix(): "" if _is_past(path) else digest(path)
        for at in places
        for path in _files(at)
    }


def _is_past(path: Path) -> bool:
    return path.name == STATE and (path.parent / RESULT).is_file()


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else list(files_below(place))


def digest(path: Path) -> str:
    """The digest of a file without times; of a link, its target."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    content = path.read_bytes()
    try:
        return short(_without_times(path, content))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return short(content)


def _without_times(path: Path, content: bytes) -> bytes:
    if "store" in path.parts:
        return content
    if path.suffix == ".json":
        return json.dumps(stable(json.loads(content)), sort_keys=True).encode()
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        return json.dumps(kept, sort_keys=True, default=str).encode()
    if path.name == "state.safetensors":
        return json.dumps({k: short(v) for k, v in parts_of(path.name, content)}).encode()
    if path.as_posix().endswith(INDEX):
        return DATE.sub(b"", content)
    return content


def changes(ours: Contents, wanted: Contents) -> list[str]:
    """What two contents differ in: `left over`, `lost` or `differs`, and the path."""
    return [
        f"{'left over' if name not in wanted else 'lost' if name not in ours else 'differs'}: "
        f"{name}"
        for name in sorted({*ours, *wanted})
        if ours.get(name) != wanted.get(name)
    ]


def read_store(name: str, cache: str | None = None) -> dict[str, str]:
    """Everything that the readers give of a store."""
    store = open_store(name, cache)
    found: dict[str, Any] = {
        "spec": store.spec,
        "origin": store.origin,
        "shape": [store.rows, list(store.sites), store.chunk_rows, str(store.group)],
        "names": [store.input_name(i) for i in range(store.arrays.layout.inputs)],
    }
    for column in ("input", "valid", *store.arrays.layout.columns):
        found[column] = store.column(column).tolist()
    for site in store.sites:
        found[site] = _site(store, site)
    return {name: short(repr(value).encode()) for name, value in found.items()}


def _site(store: Store, site: str) -> list[object]:
    moments = store.moments(site)
    arrays = [moments.mean, moments.m2, moments.zeros, store.norm_quantiles(site)]
    arrays += [store.norms(site), store.read(site, slice(0, store.rows))]
    batch = next(iter(store.batches(site, 16, seed=1)))
    return [
        *([array.shape, hashlib.sha256(array.tobytes()).hexdigest()] for array in arrays),
        *(store.width(site), store.grid(site), moments.count),
        hashlib.sha256(batch.numpy().tobytes()).hexdigest(),
    ]


def read_run(name: str) -> dict[str, str]:
    """Everything that is read of a run: its config, figures, dictionary and frequencies."""
    run = load_run(name)
    tensors = dict(run.dictionary.named_parameters()) | {"frequency": load_frequency(name)}
    found: dict[str, Any] = {"config": run.config, "figures": run.figures}
    found |= {n: hashlib.sha256(t.numpy().tobytes()).hexdigest() for n, t in tensors.items()}
    return {name: short(repr(value).encode()) for name, value in found.items()}


def read_info(name: str, home: str = "") -> str:
    """What `tendril data info` shows, without ages."""
    about = describe(find_entry(name, home))
    return short(json.dumps(_ageless(about), sort_keys=True, default=str).encode())


def _ageless(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if name != "age_seconds"}


def verified(name: str) -> list[str]:
    """The faults that `tendril data verify` lists."""
    return verify_store(name).faults
