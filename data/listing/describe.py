"""What a list shows of a store, run or report, and everything on record about one."""

import json
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunDamagedError, TendrilError
from ..home import RUN, STORE
from ..store.atomic import changed_file, unsealed
from ..store.inspect import describe_store
from ..store.inspect import overview as store_overview
from .entries import ABOUT, CONFIG, RESULT, SWEEP, Entry, written

STATE, TABLE, PAGE = "state.safetensors", "table.json", "index.html"
MALFORMED = (TendrilError, OSError, KeyError, TypeError, ValueError, AttributeError)
WORDS = {  # objectives as people write them, for runs without a label
    "topk": "TopK",
    "batch_topk": "BatchTopK",
    "matryoshka": "Matryoshka",
    "relu_l1": "ReLU",
    "gated": "gated",
    "jumprelu": "JumpReLU",
}


def overview(entry: Entry) -> dict[str, Any]:
    """What a list shows: kind, name, label, size, age and state, and the FVU of a run.

    If the files are malformed the state is "unreadable", and `reason` says why.
    """
    general: dict[str, Any] = {"kind": entry.kind.word, "name": entry.name}
    try:
        when = written(entry)
        age = {"age_seconds": round(max(0.0, time.time() - when))} if when else {}
        if entry.kind is STORE:
            return general | store_overview(entry.location, entry.name) | age
        about = _run(entry.path) if entry.kind is RUN else _report(entry.path)
        size = sum(file_sizes(entry.path).values())
        return general | {entry.kind.word: entry.location, **about, "bytes": size} | age
    except MALFORMED as error:
        return general | {"state": "unreadable", "reason": str(error) or type(error).__name__}


def describe(entry: Entry) -> dict[str, Any]:
    """Everything on record about a store, run or report. Raises TendrilError."""
    if entry.kind is STORE:
        return {"kind": STORE.word} | describe_store(entry.location, entry.name)
    shown = overview(entry)
    names = (CONFIG, SWEEP, TABLE, RESULT) if entry.kind is RUN else (ABOUT, RESULT)
    try:
        for name in names:
            if (entry.path / name).is_file():
                value, digests = _unsealed(entry.path / name)
                shown_too = {n: digests[n] for n in names if n in digests}
                if fault := changed_file(entry.path, shown_too):
                    raise ValueError(fault)
                if name != TABLE:
                    shown[name.removesuffix(".json")] = value
    except ValueError as error:
        raise RunDamagedError(
            f"{error}. Remove the {entry.kind.word} with `tendril data rm {entry.name}` and make "
            "it again."
        ) from error
    return shown | {"files": file_sizes(entry.path)}


def _run(path: Path) -> dict[str, Any]:
    """Label, state, steps and figures of a run, finished or not, or of a sweep."""
    if not (path / CONFIG).is_file():
        return _sweep(path)
    config = read_json(path / CONFIG)
    steps = int(config.get("steps", 0))
    general = {"label": run_label(config), "store": config.get("store", ""), "steps": steps}
    if not (path / RESULT).is_file():
        return general | {"state": "unfinished", "steps_done": step_of(path / STATE)}
    result, _ = _unsealed(path / RESULT)
    steps = int(result.get("steps", steps))
    figures = {
        n: result[n] for n in ("fvu", "l0", "accuracy") if isinstance(result.get(n), int | float)
    }
    return general | {"state": "finished", "steps": steps, "steps_done": steps} | figures


def _sweep(path: Path) -> dict[str, Any]:
    """Label and state of a sweep: a folder with a table of runs in other folders."""
    sweep = read_json(path / SWEEP)
    if not (path / TABLE).is_file():
        return {"label": f"sweep at {sweep['base'].get('site', '')}", "state": "unfinished"}
    table, _ = _unsealed(path / TABLE)
    label = f"sweep of {len(table['runs'])} runs, {table.get('site', '')}"
    return {"label": label, "state": "finished"}


def run_label(config: Mapping[str, Any]) -> str:
    """The entry `label` of a run's config; without one, objective, latents, k and site."""
    if config.get("label"):
        return str(config["label"])
    objective = str(config.get("objective", "dictionary"))
    k = f", k {config['k']}" if config.get("dictionary", {}).get("k") else ""
    site = f", {config['site']}" if config.get("site") else ""
    return f"{WORDS.get(objective, objective)} {config.get('latents', '')}{k}{site}"


def step_of(state: Path) -> int:
    """The step of a run's last checkpoint, from the header of its safetensors file; 0 without
    one."""
    if not state.is_file():
        return 0
    with state.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(length, os.fstat(file.fileno()).st_size)))
    return int(json.loads(header["__metadata__"]["tendril"])["step"])


def _report(path: Path) -> dict[str, Any]:
    """Study, title and state of a report; without about.json its label is the folder's name."""
    finished = (path / RESULT).is_file()
    about = read_json(path / ABOUT) if (path / ABOUT).is_file() else {}
    study, title = str(about.get("study", "")), str(about.get("title", ""))
    label = ": ".join(filter(None, (study, title))) or path.name.rpartition("-")[0] or path.name
    return {
        "label": label,
        "study": study,
        "title": title,
        "headline": str(about.get("headline", "")),
        "page": str(path / PAGE) if (path / PAGE).is_file() else "",
        "state": "finished" if finished else "unfinished",
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError, naming the file, if it is something else."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object; got {type(value).__name__}")
    return value


def _unsealed(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A JSON object without its digests, and those of the files beside it. Raises ValueError."""
    value = read_json(path)
    try:
        return unsealed(value)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def file_sizes(path: Path) -> dict[str, int]:
    """The files below a folder -> their size. Symbolic links are not followed."""
    return {
        file.relative_to(path).as_posix(): file.lstat().st_size
        for file in sorted(path.rglob("*"))
        if file.is_symlink() or file.is_file()
    }
