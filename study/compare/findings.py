"""What a comparison of dictionaries finds: figures of each run, of each pair and of all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from tendril.data.errors import RunDamagedError
from tendril.models.dictionaries.checkpoint import (
    LATENTS,
    RESULT,
    load_frequency,
    load_sae,
    read_config,
    read_json,
)

from ..core.trained import same_start, sparsity_of
from ..measures.matching import (
    Directions,
    Match,
    antipodal_pairs,
    dense_latents,
    frequency_slope,
    nearest_cosine,
    stability,
)

QUARTERS = (0.1, 0.25, 0.5, 0.75, 0.9)
Pair = tuple[int, int]


@final
@dataclass(frozen=True)
class ComparedRun:
    """A finished run, as far as a comparison looks at it."""

    name: str
    config: dict[str, Any]
    directions: Directions
    fvu: float | None = None
    """On held-out vectors; None for a run that has not ended."""


@final
@dataclass(frozen=True)
class Comparison:
    """Runs, and for each pair of their numbers the matched latents."""

    runs: Sequence[ComparedRun]
    matches: Mapping[Pair, Match]

    def figures(self) -> dict[str, Any]:
        """Figures of each run, of each pair and of all."""
        pairs = [of_pair(self.runs[i], self.runs[j], m) for (i, j), m in self.matches.items()]
        together = of_all(self.runs, self.matches, pairs)
        ones = [of_one(run) for run in self.runs]
        scalars = {name: together[name] for name in ("shared", "stability")}
        return {
            **scalars,
            "same_seed_pairs": sum(pair["same_seed"] for pair in pairs),
            "warning": seed_warning(pairs),
            "runs": ones,
            "pairs": pairs,
            "together": together,
        }


def read_run(folder: Path) -> ComparedRun:
    """Unit directions and firing frequencies of a run. Raises RunDamagedError."""
    config = read_config(folder)
    dictionary = load_sae(folder)
    frequency_S = np.full(dictionary.latents, np.nan)
    if (folder / LATENTS).exists():
        frequency_S = load_frequency(folder).double().numpy()
    if len(frequency_S) != dictionary.latents:
        raise RunDamagedError(
            f"{folder / LATENTS} must hold {dictionary.latents} frequencies, one a latent; got "
            f"{len(frequency_S)}. Train the run again."
        )
    sides = (dictionary.W_enc.T, dictionary.W_dec)
    encoder_SD, decoder_SD = (
        torch.nn.functional.normalize(side.detach().double(), dim=1).numpy() for side in sides
    )
    fvu = read_json(folder / RESULT).get("fvu") if (folder / RESULT).is_file() else None
    fvu = float(fvu) if isinstance(fvu, int | float) and math.isfinite(fvu) else None
    return ComparedRun(
        folder.resolve().name,
        config,
        Directions(encoder_SD, decoder_SD, frequency_S),
        fvu,
    )


def sparsity(config: Mapping[str, Any]) -> str:
    """What sets how many latents of a run are active, e.g. `32` for k, or `l1 0.001`."""
    found = sparsity_of(config)
    if found is None:
        return ""
    return f"{found.value:g}" if found.field == "k" else found.text


def seed_warning(pairs: Sequence[Mapping[str, Any]]) -> str | None:
    """What equal seeds do to the figures, in two sentences; None where all seeds differ."""
    alike = [f"{pair['first']} and {pair['second']}" for pair in pairs if pair["same_seed"]]
    if not alike:
        return None
    which = alike[0] if len(alike) == 1 else f"{len(alike)} of {len(pairs)} pairs of runs"
    return (
        f"Warning: {which} have the same seed, so their initial weights are the same random "
        "numbers, and latents stay alike whatever they learn. What these runs share is no evidence "
        "that features are found again; train runs with different --seed to measure that."
    )


def of_one(run: ComparedRun) -> dict[str, Any]:
    """Figures of one dictionary: how often its latents fire, and how similar they are."""
    directions = run.directions
    known = bool(np.isfinite(directions.frequency_S).all())
    slope = frequency_slope(directions.frequency_S) if known else None
    pairs = antipodal_pairs(directions) if known else []
    dense = dense_latents(directions)
    nearest = np.quantile(nearest_cosine(directions), QUARTERS)
    return {
        "run": run.name,
        "site": run.config.get("site", ""),
        "objective": run.config.get("objective", ""),
        "control": run.config.get("control", "none"),
        "seed": run.config.get("seed"),
        "k": sparsity(run.config),
        "latents": len(directions),
        "fvu": None if run.fvu is None else round(run.fvu, 4),
        "never_firing": int((directions.frequency_S == 0).sum()) if known else None,
        "dense": [int(i) for i in dense] if known else None,
        "antipodal": [[i, j, round(score, 4)] for i, j, score in pairs] if known else None,
        "frequency_slope": round(slope[0], 4) if slope else None,
        "slope_ranks": list(slope[1]) if slope else None,
        "nearest_cosine": {
            f"{q:g}": round(float(v), 4) for q, v in zip(QUARTERS, nearest, strict=True)
        },
    }


def of_pair(first: ComparedRun, second: ComparedRun, found: Match) -> dict[str, Any]:
    """Figures of two dictionaries: what they share, as a fraction of the smaller one."""
    shared = found.shared_M
    firing = (first.directions.frequency_S[found.first_M] > 0) & (
        second.directions.frequency_S[found.second_M] > 0
    )
    return {
        "first": first.name,
        "second": second.name,
        "same_seed": same_start(first.config, second.config),
        "shared": round(float(shared.mean()), 4),
        "shared_firing": round(float(shared[firing].mean()), 4) if firing.any() else None,
        "encoder_cosine": round(float(found.encoder_M.mean()), 4),
        "decoder_cosine": round(float(found.decoder_M.mean()), 4),
        "stability": round(stability(first.directions, second.directions), 4),
    }


def of_all(
    runs: Sequence[ComparedRun], matches: Mapping[Pair, Match], pairs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Figures of all runs: means over pairs with their standard deviation, and the fraction of the
    first run's latents that 0, 1, ... of the other runs share."""
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
    return {**spread, "found_in_others": [round(float(part), 4) for part in in_others]}
