"""The card of a run or store: README.md, with its figures in YAML front matter."""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..cli import one_line
from ..errors import ConfigError
from ..home import RUN, Kind
from ..listing.describe import run_label
from ..store.inspect import describe_store
from .layout import CONFIG, RESULT, read_sealed

TAGS = {
    "run": ["sparse-autoencoder", "interpretability", "mechanistic-interpretability", "tendril"],
    "store": ["activations", "interpretability", "mechanistic-interpretability", "tendril"],
}
MEANING = {
    "subject": "the network studied",
    "site": "the place in the network",
    "objective": "what was minimised",
    "width": "width of a vector",
    "latents": "latents of the dictionary",
    "k": "active latents of each vector",
    "fvu": "fraction of variance unexplained, on held-out vectors",
    "l0": "mean number of active latents, on held-out vectors",
    "dead": "fraction of latents that were dead at the end of training",
    "training_vectors": "vectors seen in training",
    "held_out_vectors": "vectors that the figures are of",
    "store": "the store it was trained on",
    "store_rows": "rows of that store",
    "imported_from": "the format it was imported from",
    "sites": "sites and their widths",
    "rows": "rows, one vector of each site a row",
    "valid_rows": "rows that hold a vector",
    "inputs": "inputs",
    "dtype": "type of the values",
    "seed": "seed of the positions",
    "weights": "digest of the network's weights",
    "fingerprint": "fingerprint of the inputs",
}


def card(
    kind: Kind, name: str, folder: Path, commands: Sequence[str], license: str, address: str
) -> str:
    """README.md of a run or store. `commands` make it again, where they are known."""
    facts = run_facts(folder) if kind is RUN else store_facts(folder)
    title = str(facts.pop("title", name))
    front: dict[str, Any] = {"library_name": "tendril", "tags": TAGS[kind.word]}
    if license:
        front["license"] = license
    front["tendril"] = {"kind": kind.word, "name": name, **facts}
    dumped = import_module("yaml").safe_dump(front, sort_keys=False, allow_unicode=True)
    rows = "\n".join(
        f"| {key} | {_cell(value)} | {MEANING.get(key, '')} |" for key, value in facts.items()
    )
    what = "A sparse dictionary" if kind is RUN else "Activations of a network, stored once"
    return (
        f"---\n{dumped}---\n\n# {_cell(title)}\n\n{what}, made with Tendril.\n\n"
        f"| | | |\n|---|---|---|\n{rows}\n\n## Use\n\n{_use(kind, name, address)}\n\n"
        f"## How it was made\n\n{_made(commands)}\n\n"
        "## Files\n\n`tendril.json` lists the other files with their XXH128 digests, which "
        "`tendril pull` checks.\n"
    )


def run_facts(folder: Path) -> dict[str, Any]:
    """The figures of a run, from its JSON files."""
    config = json.loads((folder / CONFIG).read_bytes())
    result, _ = read_sealed(folder / RESULT)
    subject = config.get("subject") if isinstance(config.get("subject"), dict) else {}
    described = config.get("dictionary") if isinstance(config.get("dictionary"), dict) else {}
    facts = {
        "title": run_label(config),
        "subject": subject.get("name"),
        "site": config.get("site"),
        "objective": config.get("objective"),
        "width": described.get("width", config.get("width")),
        "latents": described.get("latents", config.get("latents")),
        "k": described.get("k") or None,
        "fvu": _rounded(result.get("fvu")),
        "l0": _rounded(result.get("l0")),
        "dead": _rounded(result.get("dead")),
        "training_vectors": result.get("vectors"),
        "held_out_vectors": result.get("eval_rows"),
        "store": config.get("store"),
        "store_rows": _rows(folder, config.get("store_path")),
        "imported_from": config.get("imported_from"),
        "weights": subject.get("weights"),
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def store_facts(folder: Path) -> dict[str, Any]:
    """The figures of a store, from its metadata."""
    about = describe_store(str(folder), folder.name)
    stored = json.loads((folder / "zarr.json").read_bytes())["attributes"]["tendril"]
    spec = stored["spec"]
    inputs, subject = spec.get("inputs") or {}, spec.get("subject") or {}
    facts = {
        "subject": subject.get("name"),
        "sites": dict(stored["layout"]["widths"]),
        "rows": about.get("rows"),
        "valid_rows": about.get("valid_rows"),
        "inputs": inputs.get("count", inputs.get("contexts")),
        "dtype": spec.get("dtype"),
        "seed": spec.get("seed"),
        "weights": subject.get("weights"),
        "fingerprint": inputs.get("fingerprint"),
    }
    return {key: value for key, value in facts.items() if value not in (None, "", {}, [])}


def _rows(folder: Path, store_path: object) -> int | None:
    """The valid rows of a run's store, if it lies where the run says."""
    if not isinstance(store_path, str) or not store_path:
        return None
    try:
        about = json.loads((folder / store_path / "zarr.json").read_bytes())
        return int(about["attributes"]["tendril"]["valid_rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_license(license: str) -> None:
    """Raise ConfigError for a text that cannot be the identifier of a licence."""
    if license and not all(c.isalnum() or c in ".-+" for c in license):
        raise ConfigError(
            "--license must be an identifier such as mit, apache-2.0 or cc-by-4.0; got "
            f"{license!r}."
        )


def _use(kind: Kind, name: str, address: str) -> str:
    pull = f"    tendril pull {address}"
    if kind is not RUN:
        return f"{pull}\n    tendril train topk --store {name}"
    return (
        f"```python\nimport tendril\n\nsae = tendril.load_dictionary({address!r})\n"
        f"latents = sae.encode(activations)  # raw activations of the site\n```\n\n{pull}\n"
        f"    tendril data info {name}"
    )


def _made(commands: Sequence[str]) -> str:
    if not commands:
        return "The commands are not on record."
    return "\n".join(f"    {one_line(command)}" for command in commands)


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_cell(key)} {_cell(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
