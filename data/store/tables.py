"""Descriptions of stores as text for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ..cli import one_line
from ..errors import StoreDamagedError
from .provenance import DIGEST
from .rounding import rounding_warning

SHOWN = 20  # entries of a long list; JSON has them all


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text: the first column to the left, the others to the right.

    The first row holds the heads.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values, one pair per line."""
    shown = {one_line(name): one_line(str(value)) for name, value in values.items()}
    width = max((len(name) for name in shown), default=0)
    return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in shown.items())


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names, with digests abbreviated."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        elif isinstance(value, str) and len(value) >= DIGEST and value.isalnum():
            yield f"{prefix}{name}", f"{value[:12]}..."
        else:
            yield f"{prefix}{name}", value


def size(count: int | float) -> str:
    """A number of bytes in its largest unit, e.g. `1.23 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def number(value: int | float | None) -> str:
    """A float with four digits, an integer with all its digits, None as a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def state(store: Mapping[str, Any]) -> str:
    """The state of a store, with the number of shards if it is incomplete."""
    if store["state"] != "incomplete":
        return str(store["state"])
    done, shards = store["shards_done"], store["shards"]
    return f"{done} of {shards} shards ({done / shards:.0%})"


def store(about: Mapping[str, Any]) -> str:
    """What `tendril data info` prints of a store."""
    partial = {} if about["state"] == "complete" else {"rows so far": f"{about['rows_done']:,}"}
    group = {"group elements": about["elements"]} if about["elements"] else {}
    general = {
        "state": state(about),
        "inputs": f"{about['inputs']:,}, {about['rows_per_input']} rows each",
        "rows": f"{about['rows']:,}, {about['valid_rows']:,} valid",
        **partial,
        **group,
        "dtype": about["dtype"],
        "compressor": about["compressor"],
        "chunks": f"{about['chunks']:,} of {about['rows_per_chunk']:,} rows",
        "shards": f"{about['shards']:,} of {about['rows_per_shard']:,} rows",
        "size": size(about["bytes"]),
        "digest": f"{about['digest'][:12]}...",
    }
    sites = [["site", "shape", "raw", "stored", "raw row", "stored row", "stored / raw"]] + [
        [
            name,
            " x ".join(f"{n:,}" for n in site["shape"]),
            size(site["raw_bytes"]),
            size(site["bytes"]),
            f"{site['raw_bytes_per_row']:,} B",
            f"{number(site['bytes_per_row'])} B",
            number(site["fraction_of_raw"]),
        ]
        for name, site in about["sites"].items()
    ]
    unreadable = about["unreadable"]
    parts = [f"store {about['store']}", pairs(general), columns(sites)]
    parts += _int8_errors(about["sites"])
    parts += ["spec", pairs(dict(flattened(about["spec"])))]
    parts += ["origin, relative to the store", pairs(about["origin"])]
    for environment in about["environments"]:
        parts += ["environment of the harvest", pairs(environment)]
    if unreadable:
        parts += [f"{len(unreadable)} inputs could not be read"]
        named = (f"{u['input']}  {u['name']}: {u['reason']}" for u in unreadable[:SHOWN])
        parts += [f"  {one_line(text)}" for text in named]
        parts += _rest(unreadable)
    if saturated := about["saturated"]:
        parts += [f"{len(saturated)} images have pixels below black or above white"]
        parts += [f"  {s['input']}  {s['name']}: {s['pixels']:,} pixels" for s in saturated[:SHOWN]]
        parts += _rest(saturated)
    return "\n".join(parts)


def statistics(about: Mapping[str, Any]) -> str:
    """What `tendril data stats` prints."""
    parts = [f"{about['store']}: {about['valid_rows']:,} valid rows, {about['dtype']}"]
    for name, site in about["sites"].items():
        lines = [[f"{name}, {site['channels']} channels", "min", "median", "max", ""]]
        for what, of_all in (("mean", "norm"), ("variance", "total"), ("zeros", "fraction")):
            spread = site[what]
            cells = [number(spread[key]) for key in ("min", "median", "max")]
            lines.append([f"  {what}", *cells, f"{of_all} {number(spread[of_all])}"])
        quantiles = site["norm_quantiles"]
        parts += [columns(lines), "  quantiles of the norms of rows"]
        parts.append(columns([["   ", *quantiles], ["   ", *map(number, quantiles.values())]]))
        for what, meaning in (("dead", "always zero"), ("constant", "always the same value")):
            channels = site[what]
            few = ": " + ", ".join(map(str, channels[:SHOWN])) if channels else ""
            parts.append(f"  {what} channels ({meaning}): {len(channels)}{few}")
            parts += _rest(channels)
    parts += _int8_errors(about["sites"])
    return "\n".join(parts)


def _int8_errors(sites: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A line for each site of an int8 store: what rounding loses, and a warning if it is much."""
    for name, site in sites.items():
        if "int8_error" not in site:
            continue
        lost = site["int8_error"]
        if lost is None:
            yield f"{name}: the error of int8 was not measured when these rows were written"
            continue
        yield (
            f"{name}: int8 loses {lost['total']:.2%} of the variance, {lost['median']:.2%} of that "
            f"of the median channel ({lost['rows']:,} rows measured)"
        )
        warning = rounding_warning(name, lost)
        if warning:
            yield warning


def verified(about: Mapping[str, Any]) -> str:
    """What `tendril data verify` prints."""
    parts = [one_line(f"fault: {fault}") for fault in about["faults"]]
    for name, site in about["sites"].items():
        parts.append(
            f"{name}: {site['valid_rows']:,} valid rows, {site['not_finite_rows']} not finite, "
            f"{number(site['norm_outliers'])} norm outliers (above 10 times the median norm "
            f"{number(site['median_norm'])}). The largest norms:"
        )
        for row in site["largest"]:
            place = {k: v for k, v in row.items() if k not in ("norm", "times_median", "name")}
            where = ", ".join(f"{key} {value}" for key, value in place.items())
            times = number(row["times_median"])
            name_of_input = one_line(row["name"])
            parts.append(f"  {number(row['norm'])} ({times} x)  {name_of_input} ({where})")
    count = len(about["faults"])
    faults = f"{count or 'no'} fault{'' if count == 1 else 's'}"
    parts.append(f"{about['store']}: {about['files']:,} files, {faults}")
    return "\n".join(parts)


def refuse(about: Mapping[str, Any]) -> NoReturn:
    """Raise StoreDamagedError with the number of faults and the first one."""
    count = max(len(about["faults"]), about.get("differing", 0))
    raise StoreDamagedError(
        f"{about['store']} has {count:,} fault{'s' if count > 1 else ''}: {about['faults'][0]}"
    )


def _rest(entries: Sequence[object]) -> list[str]:
    more = len(entries) - SHOWN
    return [f"  and {more:,} more (--json lists all)"] if more > 0 else []
