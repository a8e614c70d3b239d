"""Digests of the stores, runs and reports of a home, from which volatile values are left out.

A digest is the first 16 hex digits of a SHA-256. Files are split where that helps to see what
differs: JSON objects by key, CSV files by column, NPZ and safetensors files by array. Digests of
configurations in names (12 hex digits) are left out, since they change with the formats.
"""

import csv
import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tendril.data.home import STORE
from tendril.data.listing.describe import file_sizes, overview
from tendril.data.listing.entries import Entry, list_entries

IDENTITY = re.compile(r"-[0-9a-f]{12}\b")
SKIPPED_NAMES = ("metrics.csv", "evaluations.csv", "runs.csv", "state.safetensors", "about.json")
SKIPPED_ENDS = (".html", ".png", ".part")
VOLATILE = {  # keys of JSON files that differ from run to run or from place to place
    "rows_per_s",
    "reused",
    "store_path",
    "beside_path",
    "home",
    "device",
    "origin",
    "environment",
    "digest",
    "xxh128",
}
Digests = dict[str, str]


def snapshot_of(home: str) -> list[dict[str, Any]]:
    """The finished stores, runs and reports of a home: kind, name, and a digest of each part."""
    entries = []
    for entry in list_entries(home):
        if overview(entry)["state"] in ("complete", "finished"):
            parts = dict(sorted(digests_of(entry)))
            entries.append({"kind": entry.kind.word, "name": entry.name, "files": parts})
    return entries


def digests_of(entry: Entry) -> Iterator[tuple[str, str]]:
    """The parts of an entry's files, as `file` or `file:part`, with their digests."""
    for name in file_sizes(entry.path):
        base = name.rpartition("/")[2]
        if base in SKIPPED_NAMES or base.endswith(SKIPPED_ENDS):
            continue
        content = (entry.path / name).read_bytes()
        if entry.kind is STORE and base != STORE.marker:
            yield name, short(content)
        else:
            for part, piece in parts_of(base, content):
                yield f"{name}:{part}" if part else name, short(piece)


def parts_of(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The parts of a file, by its suffix. An empty name stands for the whole file."""
    suffix = Path(name).suffix
    if suffix == ".json":
        value = stable(json.loads(content))
        values = value if isinstance(value, Mapping) else {"": value}
        yield from ((key, _canonical(inner)) for key, inner in values.items())
    elif suffix == ".csv":
        rows = list(csv.reader(io.StringIO(_without_identities(content.decode()))))
        for column in zip_longest(*rows, fillvalue=""):
            yield column[0], _canonical(column[1:])
    elif suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from ((array, archive.read(array)) for array in archive.namelist())
    elif suffix == ".safetensors":
        yield from _tensors(content)
    elif suffix == ".js":
        yield "", _without_identities(content.decode()).encode()
    else:
        yield "", content


def stable(value: Any) -> Any:
    """A JSON value without volatile keys, and without digests in names."""
    if isinstance(value, Mapping):
        return {
            _without_identities(key): stable(inner)
            for key, inner in value.items()
            if key not in VOLATILE and not key.startswith("seconds")
        }
    if isinstance(value, list):
        return [stable(inner) for inner in value]
    return _without_identities(value) if isinstance(value, str) else value


def short(content: bytes) -> str:
    """The first 16 hex digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def stem(name: str) -> str:
    """A name without the digests in it."""
    return IDENTITY.sub("", name)


def _tensors(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Each tensor of a safetensors file with its dtype and shape; metadata are left out."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in tensor["data_offsets"])
            yield name, _canonical([tensor["dtype"], tensor["shape"]]) + content[start:end]


def _without_identities(text: str) -> str:
    return IDENTITY.sub("", text)


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def differences(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], against: str
) -> list[str]:
    """What differs between two snapshots, one line per entry, file or part.

    Entries are matched by kind and name without digests. Among several with the same stem, those
    with the most equal parts belong together.
    """
    found = []
    groups = {(e["kind"], stem(e["name"])) for e in (*ours, *theirs)}
    for kind, name in sorted(groups):
        mine, other = (
            [e for e in side if (e["kind"], stem(e["name"])) == (kind, name)]
            for side in (ours, theirs)
        )
        while mine and other:
            pairs = [(a, b) for a in mine for b in other]
            a, b = max(pairs, key=lambda pair: _equal(pair[0]["files"], pair[1]["files"]))
            found += [f"{kind} {a['name']}: {line}" for line in _changed(a["files"], b["files"])]
            mine.remove(a)
            other.remove(b)
        found += [f"{kind} {e['name']} is not in {against}" for e in mine]
        found += [f"{kind} {e['name']} is only in {against}" for e in other]
    return found


def _equal(ours: Digests, theirs: Digests) -> int:
    return len(ours.items() & theirs.items())


def _changed(ours: Digests, theirs: Digests) -> list[str]:
    return [
        f"{part} is new"
        if part not in theirs
        else f"{part} is missing"
        if part not in ours
        else f"{part} differs"
        for part in sorted({*ours, *theirs})
        if ours.get(part) != theirs.get(part)
    ]
