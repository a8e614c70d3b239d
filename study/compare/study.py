"""`tendril train compare RUN RUN ...`: how the dictionaries of several runs relate."""

import csv
import hashlib
import io
import itertools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tendril.data.cli import note
from tendril.data.errors import ConfigError, RunDamagedError
from tendril.data.home import find_run, reports_folder
from tendril.data.store.atomic import write_whole
from tendril.data.store.spec import canonical_json, slug
from tendril.models.dictionaries.checkpoint import (
    DICTIONARY,
    LATENTS,
    load_frequency,
    load_sae,
    read_config,
)

from ..measures.matching import (
    Directions,
    Match,
    antipodal_pairs,
    dense_latents,
    frequency_slope,
    match,
    nearest_cosine,
    stability,
)
from .config import CompareConfig
from .page import render_page, table

QUARTERS = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Run:
    """A finished run, as far as a comparison looks at it."""

    name: str
    told: dict[str, Any]
    directions: Directions


def compare_runs(config: CompareConfig) -> dict[str, Any]:
    """Compare runs and make a page; returns the figures, with `report`, where it lies.

    Raises ConfigError where there are fewer than two runs, or where their vectors differ in
    width; RunNotFoundError; RunDamagedError.
    """
    began = time.monotonic()
    folders = [find_run(name, config.home) for name in config.runs]
    if len({folder.resolve() for folder in folders}) < 2:
        raise ConfigError(
            f"compare wants two different runs or more, and got {len(folders)} "
            f"({', '.join(config.runs) or 'none'}); name them by path or by the beginning of "
            "their name in runs/."
        )
    runs = [read_run(folder) for folder in dict.fromkeys(folders)]
    _check(runs)
    alone = [of_one(run) for run in runs]
    matches = {
        (i, j): match(runs[i].directions, runs[j].directions)
        for i, j in itertools.combinations(range(len(runs)), 2)
    }
    pairs = [of_pair(runs[i], runs[j], found) for (i, j), found in matches.items()]
    figures = {"runs": alone, "pairs": pairs, "together": of_all(runs, matches, pairs)}
    print(table(figures), flush=True)
    report = _report(config, folders) / "index.html"
    write_whole(report.parent / "matches.csv", _matches_csv(runs, matches))
    write_whole(report.parent / "result.json", (json.dumps(figures, indent=2) + "\n").encode())
    write_whole(report, render_page(figures, [run.directions for run in runs], matches).encode())
    return {"report": str(report), **figures, "seconds": round(time.monotonic() - began, 3)}


def read_run(folder: Path) -> Run:
    """Unit directions and frequencies of a run. Raises RunDamagedError."""
    told = read_config(folder)
    dictionary = load_sae(folder)
    frequency_S = np.full(dictionary.latents, np.nan)
    if (folder / LATENTS).exists():
        frequency_S = load_frequency(folder).double().numpy()
    if len(frequency_S) != dictionary.latents:
        raise RunDamagedError(
            f"{folder / LATENTS} should tell of {dictionary.latents} latents and tells of "
            f"{len(frequency_S)}; train the run again."
        )
    sides = (dictionary.W_enc.T, dictionary.W_dec)
    encoder_SD, decoder_SD = (
        torch.nn.functional.normalize(side.detach().double(), dim=1).numpy() for side in sides
    )
    return Run(folder.resolve().name, told, Directions(encoder_SD, decoder_SD, frequency_S))


def of_one(run: Run) -> dict[str, Any]:
    """Figures of one dictionary: how often its latents fire, and how alike they are."""
    directions = run.directions
    known = bool(np.isfinite(directions.frequency_S).all())
    slope = frequency_slope(directions.frequency_S) if known else None
    pairs = antipodal_pairs(directions) if known else []
    dense = dense_latents(directions)
    nearest = np.quantile(nearest_cosine(directions), QUARTERS)
    return {
        "run": run.name,
        "site": run.told.get("site", ""),
        "objective": run.told.get("objective", ""),
        "seed": run.told.get("seed"),
        "latents": len(directions),
        "never_firing": int((directions.frequency_S == 0).sum()) if known else None,
        "dense": [int(i) for i in dense] if known else None,
        "antipodal": [[i, j, round(score, 4)] for i, j, score in pairs] if known else None,
        "frequency_slope": round(slope[0], 4) if slope else None,
        "slope_ranks": list(slope[1]) if slope else None,
        "nearest_cosine": {
            f"{q:g}": round(float(v), 4) for q, v in zip(QUARTERS, nearest, strict=True)
        },
    }


def of_pair(first: Run, second: Run, found: Match) -> dict[str, Any]:
    """Figures of two dictionaries: what they share, as a share of the smaller one."""
    shared = found.shared_M
    firing = (first.directions.frequency_S[found.first_M] > 0) & (
        second.directions.frequency_S[found.second_M] > 0
    )
    return {
        "first": first.name,
        "second": second.name,
        "shared": round(float(shared.mean()), 4),
        "shared_firing": round(float(shared[firing].mean()), 4) if firing.any() else None,
        "encoder_cosine": round(float(found.encoder_M.mean()), 4),
        "decoder_cosine": round(float(found.decoder_M.mean()), 4),
        "stability": round(stability(first.directions, second.directions), 4),
    }


def of_all(
    runs: Sequence[Run], matches: dict[tuple[int, int], Match], pairs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Figures of all together: means over pairs with their spread (standard deviation), and
    the share of the first run's latents that 0, 1, ... of the others share."""
    times_S = np.zeros(len(runs[0].directions), dtype=int)
    for (i, _), found in matches.items():
        if i == 0:
            times_S[found.first_M[found.shared_M]] += 1
    others = len(runs) - 1
    in_others = np.bincount(times_S, minlength=others + 1) / len(times_S)
    spread: dict[str, Any] = {}
    for name in ("shared", "stability"):
        values = np.array([pair[name] for pair in pairs])
        spread[name] = round(float(values.mean()), 4)
        spread[f"{name}_spread"] = round(float(values.std()), 4)
    return {**spread, "found_in_others": [round(float(share), 4) for share in in_others]}


def _check(runs: Sequence[Run]) -> None:
    widths = {run.name: run.directions.decoder_SD.shape[1] for run in runs}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{name} of width {width}" for name, width in widths.items())
        raise ConfigError(
            f"latents of different widths cannot be compared ({told}); choose runs of one site."
        )
    for field in ("site", "store"):
        values = sorted({str(run.told.get(field) or "unknown") for run in runs})
        if len(values) > 1:
            note(f"note: the runs are of different {field}s ({', '.join(values)}).")
    largest = sorted(len(run.directions) for run in runs)[-2:]
    wanted = 3 * 8 * largest[0] * largest[1]
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > there:
        raise ConfigError(
            f"pairing {largest[0]} latents with {largest[1]} wants {wanted / 1e9:.0f} GB, and "
            f"there are {there / 1e9:.0f} GB; compare smaller dictionaries."
        )


def _report(config: CompareConfig, folders: Sequence[Path]) -> Path:
    """The report's folder, named by what the runs hold."""
    digests = [hashlib.sha256((f / DICTIONARY).read_bytes()).hexdigest() for f in folders]
    digest = hashlib.sha256(canonical_json({"dictionaries": digests}).encode()).hexdigest()
    return reports_folder(config.home) / f"{slug(config.name)}-{digest[:12]}"


def _matches_csv(runs: Sequence[Run], matches: dict[tuple[int, int], Match]) -> bytes:
    """Every pair of matched latents, one a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("first", "second", "latent", "matched", "encoder", "decoder", "shared"))
    for (i, j), found in matches.items():
        for a, b, e, d, shared in zip(
            found.first_M, found.second_M, found.encoder_M, found.decoder_M, found.shared_M,
            strict=True,
        ):  # fmt: skip
            cells = (int(a), int(b), f"{e:.4f}", f"{d:.4f}", int(shared))
            writer.writerow((runs[i].name, runs[j].name, *cells))
    return text.getvalue().encode()
