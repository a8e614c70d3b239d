"""`tendril study export REPORT FOLDER`: features of text for SAEDashboard and Neuronpedia.

<folder>/batch-0.json, batch-1.json ...   128 latents each, as SAEDashboard's NeuronpediaRunner
                                          writes them
<folder>/tendril.json                     what was exported, and the version of this layout

A batch is {model_id, layer, sae_set, sae_id_suffix, features}. A feature has the fields of
SAEDashboard's NeuronpediaDashboardFeature. What Tendril does not compute is an empty list, as it is
there: correlated neurons and features, the histogram of logits, and weights by attention head. The
examples with `bin_min` -1 are the strongest. For a weaker one the bin is the bar of the histogram
that it falls into, and `bin_contains` the fraction of tokens in it.

Source: SAEDashboard (github.com/jbloomAus/SAEDashboard), `sae_dashboard/neuronpedia`, 2025.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from tendril.data.cli import Outcome
from tendril.data.errors import ConfigError, ReportDamagedError, TendrilError
from tendril.data.home import find_report
from tendril.data.store.atomic import locked, remove_asides, write_whole
from tendril.models.dictionaries.checkpoint import load_sae

from ..core.report import ABOUT, AGAIN, Report, read_sealed
from ..measures.latent_activity import edges as histogram_edges
from .page import NOT_COUNTED, THOUSAND

LAYOUT = "saedashboard-neuronpedia-batch"
VERSION = 1
ALIGNED = 3  # neurons listed of each latent, as in SAEDashboard
LAYER = re.compile(r"\.(\d+)(?:\.|$)")
EMPTY = (
    *("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson"),
    *("correlated_features_indices", "correlated_features_l1", "correlated_features_pearson"),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values", "decoder_weights_dist"),
)


def export_features(
    wanted: str, target: str, model: str = "", layer: int = -1, set: str = "", home: str = ""
) -> Outcome:
    """Write the latents of a features report of text as batches that SAEDashboard reads.

    `model`, `layer` and `set` are the names on Neuronpedia; by default the subject, the block of
    the site and the run. Raises ReportNotFoundError, ReportDamagedError, and ConfigError for a
    report of another kind and for a folder that holds batches.
    """
    report = find_report(wanted, home)
    figures = _figures(report)
    folder = Path(target)
    if any(folder.glob("batch-*.json")):
        raise ConfigError(f"{folder} already holds batches. Choose another folder.")
    about = read_json(report / ABOUT)
    site, run = str(figures["site"]), str(figures["run"])
    block = LAYER.search(site)
    if layer < 0 and block is None:
        raise ConfigError(f"--layer must be given: the site {site!r} has no number of a block.")
    subject = (about.get("identity") or {}).get("subject") or {}
    named: dict[str, Any] = {
        "model_id": model or str(subject.get("name", "")),
        "layer": layer if layer >= 0 or block is None else int(block[1]),
        "sae_set": set or run,
        "sae_id_suffix": None,
    }
    (index,) = arguments_of(report / "data" / "index.js", "features.index")
    W_dec = _decoder(run, home)
    folder.mkdir(parents=True, exist_ok=True)
    batches = 0
    with locked(folder):
        remove_asides(folder, deep=False)
        for number, piece in _pieces(report, index):
            first = number * int(index["piece"])
            features = [
                feature_of(index, figures, first + i, entry, W_dec) for i, entry in enumerate(piece)
            ]
            content = json.dumps({**named, "features": features}, allow_nan=False)
            write_whole(folder / f"batch-{number}.json", content.encode())
            batches += 1
        told = {"layout": LAYOUT, "version": VERSION, "run": run, "site": site, **named}
        write_whole(folder / "tendril.json", (json.dumps(told, indent=2) + "\n").encode())
    return Outcome(
        {"exported": str(folder), "latents": index["latents"], "batches": batches, **named},
        f"Exported {index['latents']:,} latents of {run} for SAEDashboard and Neuronpedia, in "
        f"{batches} batches; {folder}",
        f"ls {folder}",
    )


def feature_of(
    index: Mapping[str, Any],
    figures: Mapping[str, Any],
    latent: int,
    entry: Mapping[str, Any],
    W_dec: Float32[np.ndarray, "s d"] | None,
) -> dict[str, Any]:
    """A latent as a NeuronpediaDashboardFeature."""
    words, rows = index["tokens"], int(index["rows"])
    highest = float(floats_of(index["max"])[latent])
    edges = histogram_edges()
    first, *counts = entry["histogram"]
    middles = (edges[first : first + len(counts)] + edges[first + 1 : first + 1 + len(counts)]) / 2
    up, down = entry.get("up", []), entry.get("down", [])
    strongest = [
        activation(words, example, highest, (-1.0, highest, -1.0)) for example in entry["strongest"]
    ]
    weaker = [
        activation(words, example, highest, _bin(example[3], edges, first, counts, rows))
        for example in entry["weaker"]
    ]
    return {
        "feature_index": latent,
        **_aligned(W_dec, latent),
        **{name: [] for name in EMPTY},
        "pos_str": [words[place] for place, _ in up],
        "pos_values": [digits(weight) for _, weight in up],
        "neg_str": [words[place] for place, _ in down],
        "neg_values": [digits(weight) for _, weight in down],
        "frac_nonzero": entry["fired"] / max(rows, 1),
        "freq_hist_data_bar_values": [digits(value) for value in middles],
        "freq_hist_data_bar_heights": counts,
        "n_prompts_total": figures["contexts"],
        "n_tokens_in_prompt": index["length"],
        "dataset": figures["store"],
        "activations": strongest + weaker,
    }


def activation(
    words: Sequence[str],
    example: Sequence[Any],
    highest: float,
    bin_of: tuple[float, float, float],
) -> dict[str, Any]:
    """An example as a NeuronpediaDashboardActivation. Tokens that are not counted have 0."""
    at, tokens, parts = example[4], example[5], example[6]
    values = [0.0 if part == NOT_COUNTED else digits(part * highest / THOUSAND) for part in parts]
    return {
        "bin_min": bin_of[0],
        "bin_max": bin_of[1],
        "bin_contains": bin_of[2],
        "tokens": [words[place] for place in tokens],
        "values": values,
        "qualifying_token_index": at,
    }


def _bin(
    value: float, edges: Float64[np.ndarray, " e"], first: int, counts: Sequence[int], rows: int
) -> tuple[float, float, float]:
    """The bar of the histogram that a value falls into, and the fraction of tokens in it."""
    bar = int(np.clip(np.searchsorted(edges, value, side="right") - 1 - first, 0, len(counts) - 1))
    low, high = edges[first + bar], edges[first + bar + 1]
    return digits(low), digits(high), counts[bar] / max(rows, 1)


def _aligned(W_dec: Float32[np.ndarray, "s d"] | None, latent: int) -> dict[str, list[Any]]:
    """The largest entries of a decoder row, and their fractions of its L1 norm."""
    names = ("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1")
    if W_dec is None:
        return {name: [] for name in names}
    row = W_dec[latent]
    best = np.argsort(-row, kind="stable")[:ALIGNED]
    shares = np.abs(row[best]) / max(float(np.abs(row).sum()), 1e-30)
    lists = (best.tolist(), _short(row[best]), _short(shares))
    return dict(zip(names, lists, strict=True))


def _short(values: Float32[np.ndarray, " n"]) -> list[float]:
    return [digits(float(value)) for value in values]


def digits(value: float) -> float:
    """A number to four significant digits."""
    return float(f"{value:.4g}")


def _decoder(run: str, home: str) -> Float32[np.ndarray, "s d"] | None:
    """The decoder of the report's run, if it is still there."""
    try:
        return load_sae(run, home).W_dec.detach().float().numpy()
    except TendrilError:
        return None


def _figures(report: Path) -> dict[str, Any]:
    """The figures of a whole features report of text."""
    about = read_json(report / ABOUT)
    if about.get("study") != "features":
        raise ConfigError(
            f"the report must be one of `tendril study features`; {report.name} is one of "
            f"{about.get('study')!r:.40}. Name another report."
        )
    figures = Report(report).figures() or {}
    if "contexts" not in figures:
        raise ConfigError(
            f"the report must be of a language model, because SAEDashboard and Neuronpedia show "
            f"tokens; {report.name} is of images. Name another report."
        )
    return figures


def _pieces(report: Path, index: Mapping[str, Any]) -> Iterator[tuple[int, list[Any]]]:
    for number in range(-(-int(index["latents"]) // int(index["piece"]))):
        _, piece = arguments_of(report / "data" / f"{number:03d}.js", "features.piece")
        yield number, piece


def arguments_of(path: Path, function: str) -> list[Any]:
    """The arguments of the one call in a file of the page's data. Raises ReportDamagedError."""
    try:
        text = path.read_text("utf-8").strip()
        inner = text.removeprefix(f"{function}(").removesuffix(");")
        if len(inner) + len(function) + 3 != len(text):
            raise ValueError(f"it is no call of {function}")
        arguments: list[Any] = json.loads(f"[{inner}]")
        return arguments
    except (OSError, ValueError, RecursionError) as error:
        raise ReportDamagedError(f"{path} cannot be read ({error}). {AGAIN}") from error


def floats_of(text: str) -> Float32[np.ndarray, " s"]:
    """Numbers of all latents: little-endian floats in base64."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a report. Raises ReportDamagedError."""
    return read_sealed(path)[0]
