"""Lists and descriptions of stores, runs and reports as text for a terminal."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ..cli import one_line, printable
from ..home import KINDS, Kind, age_in_words
from ..store import tables as store_tables
from ..store.tables import flattened, number, pairs, size

WIDTH = 100  # columns at most
NARROWEST = 24  # columns of a label at least
CUT = "…"
SHOWN = 40  # files that `info` lists; --json lists all


def listing(found: Sequence[Mapping[str, Any]], kinds: Sequence[Kind], place: str) -> str:
    """What `tendril data ls` prints: one table per kind, and the total."""
    parts = []
    for kind in kinds:
        entries = [entry for entry in found if entry["kind"] == kind.word]
        if entries:
            parts.append(table(entries, kind))
    if not parts:
        made_by = ", ".join(dict.fromkeys(kind.made_by for kind in kinds))
        words = ", ".join(f"{kind.word}s" for kind in kinds)
        return f"no {words} in {printable(place)}. How to make one: {made_by}."
    unreadable = [entry for entry in found if entry["state"] == "unreadable"]
    parts += [f"{cell(e['name'])} cannot be read: {cell(e['reason'])}" for e in unreadable]
    total = size(sum(entry.get("bytes", 0) for entry in found))
    noun = "entry" if len(found) == 1 else "entries"
    parts.append(f"{len(found)} {noun}, {total}, in {printable(place)}")
    return "\n\n".join(parts)


def table(entries: Sequence[Mapping[str, Any]], kind: Kind) -> str:
    """A table of one kind. Columns without any content are left out."""
    heads = [f"{kind.word}s", "what it is", "size", "age", "state", "FVU", "accuracy"]
    rows = [
        [
            cell(entry["name"]),
            cell(entry.get("label", "")),
            size(entry["bytes"]) if "bytes" in entry else "",
            short_age(entry["age_seconds"]) if "age_seconds" in entry else "",
            state(entry),
            number(entry["fvu"]) if entry.get("fvu") is not None else "",
            f"{entry['accuracy']:.2%}" if entry.get("accuracy") is not None else "",
        ]
        for entry in entries
    ]
    shown = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in rows)]
    return fitted([[row[i] for i in shown] for row in [heads, *rows]])


def state(entry: Mapping[str, Any]) -> str:
    """Complete or finished, or how far it has come."""
    if entry["state"] == "incomplete":
        return store_tables.state(entry)
    if entry["state"] == "unfinished" and entry.get("steps"):
        return f"step {entry['steps_done']:,} of {entry['steps']:,}"
    return str(entry["state"])


def cell(text: str) -> str:
    """A text on one line, with all control characters escaped."""
    return printable(text).replace("\n", "\\n")


def fitted(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows of cells, the first row being the heads, in lines of at most `width` columns.

    `width` is by default that of the terminal, at most 100. The first column, a name, is never
    cut: a name that is too long has a line of its own. The second column, a label, ends in … if
    it is cut. The other columns are aligned to the right.
    """
    width = width or min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    others = [max(len(row[i]) for row in rows) for i in range(2, len(rows[0]))]
    names, labels = [len(row[0]) for row in rows], [len(row[1]) for row in rows]
    shared = width - 2 - sum(n + 2 for n in others)  # by names and labels

    def broken(first: int) -> tuple[int, int]:
        """How many names need a line of their own and how many labels are cut."""
        return sum(n > first for n in names) + sum(n > shared - first for n in labels), -first

    fits = [n for n in {*names, len(rows[0][0])} if shared - n >= NARROWEST]
    first = min(fits, key=broken, default=0)
    second = min(max(NARROWEST, shared - first), max(labels))
    lines = []
    for name, label, *cells in rows:
        label = label if len(label) <= second else label[: second - 1] + CUT
        rest = [cell.rjust(n) for cell, n in zip(cells, others, strict=True)]
        if len(name) > first:
            lines.append(name)
            name = ""
        lines.append("  ".join([name.ljust(first), label.ljust(second), *rest]).rstrip())
    return "\n".join(lines)


def short_age(seconds: int) -> str:
    """A duration in its largest unit, abbreviated, e.g. `3 h`."""
    count, unit = age_in_words(float(seconds)).split()
    return f"{count} {'min' if unit.startswith('min') else unit[0]}"


def description(about: Mapping[str, Any]) -> str:
    """What `tendril data info` prints of a store, run or report."""
    if about["kind"] == "store":
        return printable(store_tables.store(about))
    general = {
        "label": about.get("label", ""),
        "headline": about.get("headline", ""),
        "state": state(about),
        "size": size(about.get("bytes", 0)),
        "age": age_in_words(float(about.get("age_seconds", 0))),
        "page": about.get("page", ""),
        "made by": about.get("about", {}).get("command", ""),
    }
    parts = [
        f"{about['kind']} {about.get(about['kind'], about['name'])}",
        pairs({name: value for name, value in general.items() if value}),
    ]
    for section in ("result", "config", "sweep"):
        values = dict(flattened({k: counted(v) for k, v in about.get(section, {}).items()}))
        values.pop("warnings", None)
        if values:
            parts += [section, pairs({name: shortened(v) for name, v in values.items()})]
    if isinstance(warnings := about.get("result", {}).get("warnings"), list) and warnings:
        parts += ["warnings of training", *(f"  {one_line(str(text))}" for text in warnings)]
    files = about["files"]
    parts += ["files", pairs({name: size(n) for name, n in list(files.items())[:SHOWN]})]
    if len(files) > SHOWN:
        parts.append(f"  and {len(files) - SHOWN:,} more (--json lists all)")
    return printable("\n".join(parts))


def counted(value: Any) -> Any:
    """The number of entries of a list of objects; other values unchanged."""
    if isinstance(value, list) and any(isinstance(entry, Mapping | list) for entry in value):
        return f"{len(value)} entries (--json lists all)"
    return value


def removal(removed: Mapping[str, Any]) -> str:
    """What `tendril data rm` prints."""
    index = "; `tendril study index` updates the index page" if removed["kind"] == "report" else ""
    return cell(f"removed {removed['removed']}, {size(removed['bytes'])}{index}")


def shortened(value: object) -> str:
    """A value on one line of moderate length; a float in four digits."""
    text = number(value) if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= 72 else text[:71] + CUT


def made_of(kinds: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds that words such as `runs` or `run` name; all without any."""
    wanted = {word.removesuffix("s") for word in kinds}
    return tuple(kind for kind in KINDS if not wanted or kind.word in wanted)
