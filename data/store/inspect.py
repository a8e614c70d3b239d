"""Describe a store by its metadata and statistics, as plain values. No row is read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from ..errors import ConfigError, StoreNotFoundError
from .chunks import StoredArrays
from .dtypes import ITEM_BYTES
from .folder import Folder, open_folder
from .layout import Layout
from .record import METADATA, layout_of, read_about, read_record, recorded_shards
from .rounding import rounding_on_record
from .spec import blocks_of, full_site
from .verify import quantile_levels


def overview(location: str, name: str) -> dict[str, Any]:
    """What a list of stores shows. Raises StoreNotFoundError, StoreVersionError."""
    folder = open_folder(location)
    return _overview(folder, read_about(folder), name)


def _overview(folder: Folder, about: Mapping[str, Any], name: str) -> dict[str, Any]:
    layout, complete = layout_of(about), bool(about["complete"])
    sizes = {} if complete else folder.sizes()
    done = layout.shards if complete else len(recorded_shards(sizes))
    rows_done = min(done * layout.rows_per_shard, layout.rows)
    return {
        "name": name,
        "store": folder.location,
        "label": _label(about, layout),
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


def _label(about: Mapping[str, Any], layout: Layout) -> str:
    """Subject, sites and rows, e.g. `planted, mixed3a + mixed3b, 12,000 rows of 32 elements`."""
    subject = about["spec"]["subject"].get("name", "unnamed subject")
    elements = f" of {layout.elements} elements" if layout.elements else ""
    return f"{subject}, {' + '.join(layout.widths)}, {layout.rows:,} rows{elements}"


def describe_store(location: str, name: str) -> dict[str, Any]:
    """Everything on record about a store, complete or not.

    Raises StoreNotFoundError, StoreVersionError, StoreDamagedError.
    """
    folder = open_folder(location)
    about = read_about(folder)
    layout, sizes = layout_of(about), folder.sizes()
    dtype = about["spec"]["dtype"]
    on_disk: dict[str, int] = {}
    for file, size in sizes.items():
        array, of_array, _ = file.partition("/c/")
        if of_array and array in layout.arrays(dtype):
            on_disk[array] = on_disk.get(array, 0) + size
    records = [read_record(folder, shard) for shard in recorded_shards(sizes)]
    rows = sum(record["rows"][1] - record["rows"][0] for record in records)
    rounding = {site: rounding_on_record(records, site) for site in layout.widths}
    environments = {str(sorted(r["environment"].items())): r["environment"] for r in records}
    return _overview(folder, about, name) | {
        "bytes": sum(sizes.values()),
        "rows_done": rows,
        "valid_rows": sum(record["valid_rows"] for record in records),
        "digest": about["digest"],
        "rows_per_input": layout.rows_per_input,
        "rows_per_chunk": layout.rows_per_chunk,
        "rows_per_shard": layout.rows_per_shard,
        "chunks": -(-layout.rows // layout.rows_per_chunk),
        "sites": {
            site: _describe_site(layout, site, dtype, rows, on_disk)
            | ({"int8_error": rounding[site]} if dtype == "int8" else {})
            for site in layout.widths
        },
        "columns": {
            array: size for array, size in on_disk.items() if not array.startswith("activations/")
        },
        "spec": about["spec"],
        "origin": about["origin"],
        "environments": list(environments.values()),
        "unreadable": [failure for record in records for failure in record["failures"]],
        "saturated": [image for record in records for image in record.get("saturated", [])],
    }


def _describe_site(
    layout: Layout, site: str, dtype: str, rows: int, on_disk: Mapping[str, int]
) -> dict[str, Any]:
    """Shape and bytes of a site. For int8, `scales/<site>` count as bytes of the rows."""
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
        "fraction_of_raw": stored / (rows * row_bytes) if rows else None,
    }


def summarise(location: str, site: str = "") -> dict[str, Any]:
    """The stored statistics of one site or all sites, in a few numbers.

    Raises ConfigError for an unknown site, and the errors of opening a store.
    """
    arrays = StoredArrays(location)
    sites = list(arrays.layout.widths)
    site = full_site(site, sites, blocks_of(arrays.about["origin"]))
    if site and site not in sites:
        raise ConfigError(
            f"--site must be one of {', '.join(sites)}, the sites of the store "
            f"{arrays.folder.location}; got {site!r}."
        )
    chosen = [site] if site else sites
    found = {name: _summarise_site(arrays, name) for name in chosen}
    if arrays.dtype == "int8":
        for name, lost in rounding_of_store(arrays.folder, chosen).items():
            found[name]["int8_error"] = lost
    return {
        "store": location,
        "dtype": arrays.dtype,
        "valid_rows": int(arrays.about["valid_rows"]),
        "sites": found,
    }


def rounding_of_store(
    folder: Folder, sites: Sequence[str]
) -> dict[str, dict[str, float | int] | None]:
    """What int8 loses at each site, from the records. None if it was not measured."""
    records = [read_record(folder, shard) for shard in recorded_shards(folder.sizes())]
    return {site: rounding_on_record(records, site) for site in sites}


def _summarise_site(arrays: StoredArrays, site: str) -> dict[str, Any]:
    """Statistics of a site. A channel is dead if all its values are zero, and constant if they
    all equal another number. With a group, channels are listed as [element, channel]."""
    mean, variance, zeros = (arrays.statistic(site, n) for n in ("mean", "variance", "zeros"))
    has_rows = arrays.about["valid_rows"] > 0
    dead = (zeros == 1) & has_rows
    constant = (variance == 0) & ~dead & has_rows
    quantiles = arrays.statistic(site, "norm_quantiles").tolist()
    levels = quantile_levels(arrays, site).tolist()
    return {
        "channels": int(mean.size),
        "mean": _spread(mean) | {"norm": float(np.linalg.norm(mean))},
        "variance": _spread(variance) | {"total": float(variance.sum())},
        "zeros": _spread(zeros) | {"fraction": float(zeros.mean())},
        "norm_quantiles": {f"{level:g}": q for level, q in zip(levels, quantiles, strict=True)},
        "dead": _places(dead),
        "constant": _places(constant),
    }


def _places(chosen: Bool[np.ndarray, "..."]) -> list[int] | list[list[int]]:
    places: list[list[int]] = np.argwhere(chosen).tolist()
    return [place[0] for place in places] if chosen.ndim == 1 else places


def _spread(values: Float64[np.ndarray, "..."]) -> dict[str, float]:
    """Minimum, median and maximum over the channels."""
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def check_store(folder: Folder) -> None:
    """Raise StoreNotFoundError unless a folder is a store of Tendril, in any state or version."""
    try:
        ours = b'"tendril"' in folder.read(METADATA)
    except (FileNotFoundError, NotADirectoryError):
        ours = False
    if not ours:
        raise StoreNotFoundError(
            f"{folder.location} is not a store of Tendril: its {METADATA} has no attribute "
            "`tendril`. It is left alone."
        )
