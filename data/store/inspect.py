"""What stores there are, what one holds, and what its statistics say: as plain values, ready
for JSON. Metadata only, but for the statistics: no row is read."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from ..errors import ConfigError, StoreNotFoundError, TendrilError
from ..home import entries, store_location
from .atomic import locked
from .chunks import StoredArrays
from .dtypes import ITEM_BYTES
from .folder import SCHEME, Folder, LocalFolder, open_folder
from .layout import Layout
from .record import METADATA, RECORDS, layout_of, read_about, read_record, record_name
from .verify import quantile_levels

MALFORMED = (TendrilError, OSError, KeyError, TypeError, ValueError)  # of a root that is altered
REMOVING = "removing"


def list_stores(home: str = "") -> list[dict[str, Any]]:
    """Every store of a home, complete or not, by name; of one whose root cannot be read only
    the reason."""
    place = store_location("", home or None).rstrip("/")
    if SCHEME in place:
        names = {n.partition("/")[0] for n in open_folder(place).sizes() if n.endswith(METADATA)}
    else:
        names = {p.name for p in entries(Path(place), METADATA)}
    found = []
    for name in sorted(n for n in names if not n.startswith(".")):
        folder = open_folder(f"{place}/{name}")
        try:
            found.append(_overview(folder, read_about(folder), name))
        except MALFORMED as error:
            found.append({"name": name, "state": "unreadable", "reason": str(error)})
    return found


def _overview(folder: Folder, about: Mapping[str, Any], name: str) -> dict[str, Any]:
    layout, complete = layout_of(about), bool(about["complete"])
    sizes = {} if complete else folder.sizes()
    done = layout.shards if complete else _shards_done(layout, sizes)
    rows_done = min(done * layout.rows_per_shard, layout.rows)
    return {
        "name": name,
        "store": folder.location,
        "state": "complete" if complete else "incomplete",
        "shards": layout.shards,
        "shards_done": done,
        "inputs": layout.inputs,
        "rows": layout.rows,
        "rows_done": rows_done,
        "sites": dict(layout.widths),
        "elements": layout.elements,
        "dtype": about["spec"]["dtype"],
        "compressor": layout.compressor,
        "bytes": about["bytes"] if complete else sum(sizes.values()),
    }


def _shards_done(layout: Layout, sizes: Mapping[str, int]) -> int:
    return sum(record_name(shard) in sizes for shard in range(layout.shards))


def describe_store(location: str) -> dict[str, Any]:
    """All that a store says of itself, complete or not. Raises StoreNotFoundError,
    StoreVersionError, StoreDamagedError."""
    folder = open_folder(location)
    about = read_about(folder)
    layout, sizes = layout_of(about), folder.sizes()
    dtype = about["spec"]["dtype"]
    on_disk: dict[str, int] = {}
    for name, size in sizes.items():
        array, of_array, _ = name.partition("/c/")
        if of_array and array in layout.arrays(dtype):
            on_disk[array] = on_disk.get(array, 0) + size
    records = [
        read_record(folder, shard) for shard in range(layout.shards) if record_name(shard) in sizes
    ]
    rows = sum(record["rows"][1] - record["rows"][0] for record in records)
    environments = {str(sorted(r["environment"].items())): r["environment"] for r in records}
    return _overview(folder, about, Path(location).name) | {
        "bytes": sum(sizes.values()),
        "rows_done": rows,
        "valid_rows": sum(record["valid_rows"] for record in records),
        "digest": about["digest"],
        "rows_per_input": layout.rows_per_input,
        "rows_per_chunk": layout.rows_per_chunk,
        "rows_per_shard": layout.rows_per_shard,
        "chunks": -(-layout.rows // layout.rows_per_chunk),
        "sites": {
            site: _describe_site(layout, site, dtype, rows, on_disk) for site in layout.widths
        },
        "columns": {
            array: size for array, size in on_disk.items() if not array.startswith("activations/")
        },
        "spec": about["spec"],
        "origin": about["origin"],
        "environments": list(environments.values()),
        "unreadable": [failure for record in records for failure in record["failures"]],
    }


def _describe_site(
    layout: Layout, site: str, dtype: str, rows: int, on_disk: Mapping[str, int]
) -> dict[str, Any]:
    """`scales/<site>` belong to the rows of int8; a row's share of the rest is told apart."""
    stored = on_disk.get(f"activations/{site}", 0) + on_disk.get(f"scales/{site}", 0)
    scale = 4 if dtype == "int8" else 0
    row_bytes = int(np.prod(layout.row_shape(site))) * ITEM_BYTES[dtype] + scale
    return {
        "rows": layout.rows,
        "shape": [layout.rows, *layout.row_shape(site)],
        "grid": list(layout.grids.get(site, ())),
        "raw_bytes": rows * row_bytes,
        "bytes": stored,
        "raw_bytes_per_row": row_bytes,
        "bytes_per_row": stored / rows if rows else None,
        "share_of_raw": stored / (rows * row_bytes) if rows else None,
    }


def summarise(location: str, site: str = "") -> dict[str, Any]:
    """The stored statistics of one site or all, in a few numbers. Raises what opening a store
    raises, and ConfigError for a site that it has not."""
    arrays = StoredArrays(location)
    sites = list(arrays.layout.widths)
    if site and site not in sites:
        raise ConfigError(
            f"the store {arrays.folder.location} has the sites {', '.join(sites)}, and not "
            f"{site!r}; choose one of them with --site."
        )
    return {
        "store": location,
        "dtype": arrays.dtype,
        "valid_rows": int(arrays.about["valid_rows"]),
        "sites": {name: _summarise_site(arrays, name) for name in ([site] if site else sites)},
    }


def _summarise_site(arrays: StoredArrays, site: str) -> dict[str, Any]:
    """A channel is dead where all its values are zero, constant where all are another one; in
    a store of a group it is the channel of one element, told as [element, channel]."""
    mean, variance, zeros = (arrays.statistic(site, n) for n in ("mean", "variance", "zeros"))
    some = arrays.about["valid_rows"] > 0
    dead = (zeros == 1) & some
    constant = (variance == 0) & ~dead & some
    quantiles = arrays.statistic(site, "norm_quantiles").tolist()
    levels = quantile_levels(arrays, site).tolist()
    return {
        "channels": int(mean.size),
        "mean": _spread(mean) | {"norm": float(np.linalg.norm(mean))},
        "variance": _spread(variance) | {"total": float(variance.sum())},
        "zeros": _spread(zeros) | {"share": float(zeros.mean())},
        "norm_quantiles": {f"{level:g}": q for level, q in zip(levels, quantiles, strict=True)},
        "dead": _places(dead),
        "constant": _places(constant),
    }


def _places(chosen: Bool[np.ndarray, "..."]) -> list[int] | list[list[int]]:
    places: list[list[int]] = np.argwhere(chosen).tolist()
    return [place[0] for place in places] if chosen.ndim == 1 else places


def _spread(values: Float64[np.ndarray, "..."]) -> dict[str, float]:
    """Of the channels: the least, the median and the greatest."""
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def remove_store(location: str) -> dict[str, Any]:
    """Remove a store, complete or not, of any version; what is no store is left alone.

    On this machine it goes at once: renamed, then deleted. Raises StoreNotFoundError, and
    StoreLockedError while a harvest writes it.
    """
    folder = open_folder(location)
    check_ours(folder)
    began = time.perf_counter()
    freed = sum(folder.sizes().values())
    if isinstance(folder, LocalFolder):
        path = folder.path.resolve()
        with locked(path):
            aside = path.with_name(f".{path.name}.{REMOVING}")
            LocalFolder(aside).remove()  # left by one that was stopped
            path.rename(aside)
            LocalFolder(aside).remove()
    else:
        folder.remove()
    return {"removed": location, "bytes": freed, "seconds": round(time.perf_counter() - began, 2)}


def check_ours(folder: Folder) -> None:
    """Raises StoreNotFoundError where a folder is no store of Tendril's, whatever its state."""
    try:
        ours = b'"tendril"' in folder.read(METADATA)
    except (FileNotFoundError, NotADirectoryError):
        ours = False
    if not ours:
        raise StoreNotFoundError(
            f"{folder.location} is no store of Tendril's (its {METADATA} does not say so), and "
            f"is left alone; it should hold {METADATA} and {RECORDS}/."
        )
