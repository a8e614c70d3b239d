"""tendril bench recovery: how much of a known truth each objective finds.

Width 64, 256 features, 4 on at a time, 256 latents (see `truth`). Each objective is tried at
its settings on the first seed; the best of them is run on the others. No test: the figures
are reported as they are.
"""

import statistics
import sys
from dataclasses import dataclass
from typing import Any

import torch

from tendril.data.device import cpu_threads
from tendril.models.dictionaries import baselines
from tendril.models.dictionaries.sae import SAE
from tendril.train.config import TrainConfig
from tendril.train.metrics import evaluate
from tendril.train.objectives.base import make_objective
from tendril.train.trainer import Trainer

from .measure import machine
from .planted_vectors import Frequencies, Truth

FAST = 3e-3  # a learning rate for 2000 steps
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "topk": [{"objective": "topk", "k": k} for k in (4, 6, 8)],
    "batch_topk": [{"objective": "batch_topk", "k": k} for k in (4, 6, 8)],
    "matryoshka": [{"objective": "matryoshka", "k": k, "lr": 1e-2} for k in (3, 4, 6)],
    "relu_l1": [{"objective": "relu_l1", "l1": l1} for l1 in (1.0, 2.0, 3.0)],
    "tied": [{"objective": "tied", "l1": l1, "lr": 1e-2} for l1 in (1.0, 1.5, 2.0)],
    "gated": [{"objective": "gated", "l1": l1} for l1 in (1.0, 2.0, 3.0)],
    "jumprelu": [{"objective": "jumprelu", "l0": l0} for l0 in (0.01, 0.02, 0.03)],
    "jumprelu_target": [
        {"objective": "jumprelu", "l0": 1.0, "target_l0": target} for target in (4.0, 5.0, 6.0)
    ],
}
EVALUATED = 16  # batches that nothing was trained on


@dataclass(frozen=True)
class RecoveryBench:
    """Tables of recovery: frequencies x objectives, over seeds. Half an hour on a core."""

    frequencies: tuple[Frequencies, ...] = ("uniform", "power-law", "correlated")
    """How often features are on: alike, by rank, or together with others."""
    objectives: tuple[str, ...] = tuple(SETTINGS)
    """Which objectives to try."""
    seeds: int = 3
    """Seeds: of the truth, of the vectors and of the first weights."""
    steps: int = 2000
    """Steps of 1024 vectors."""


def measure(bench: RecoveryBench) -> dict[str, object]:
    """All tables, as JSON."""
    with cpu_threads(1):
        tables = {f: _table(bench, f) for f in bench.frequencies}
    return {"machine": machine(), "steps": bench.steps, "tables": tables}


def recover(
    frequencies: Frequencies, seed: int, steps: int, fields: dict[str, Any], **size: Any
) -> dict[str, float]:
    """Train one dictionary: its recovery, and its FVU, L0 and share of latents that never
    fire on fresh vectors. `size` is of the truth; by default that of the tables."""
    truth = Truth(frequencies, seed, **size)
    config = TrainConfig(
        **({"lr": FAST, "dead_after": 100_000} | fields),
        latents=len(truth.directions_FD),
        steps=steps,
        batch_size=truth.batch_size,
        seed=seed,
        device="cpu",
    )
    width = truth.directions_FD.shape[1]
    config.check(width)
    objective = make_objective(config, width)
    trainer = Trainer(config, objective, truth, truth.scale, torch.device("cpu"))
    for _ in range(steps):
        trainer.advance()
    sae = trainer.sae.plain()
    assert isinstance(sae, SAE)
    return _figures(truth, sae, truth.scale)


def _table(bench: RecoveryBench, frequencies: Frequencies) -> dict[str, object]:
    rows: dict[str, object] = {}
    for name in bench.objectives:
        tried = [recover(frequencies, 0, bench.steps, f) for f in SETTINGS[name]]
        best = max(range(len(tried)), key=lambda i: tried[i]["recovery"])
        seeds = [tried[best]]
        for seed in range(1, bench.seeds):
            seeds.append(recover(frequencies, seed, bench.steps, SETTINGS[name][best]))
        rows[name] = _row(seeds) | {"setting": SETTINGS[name][best]}
        print(f"{frequencies} {name}: {rows[name]}", file=sys.stderr, flush=True)
    for name in ("ica", "random"):
        rows[name] = _row([_baseline(name, frequencies, seed) for seed in range(bench.seeds)])
    return rows


def _row(seeds: list[dict[str, float]]) -> dict[str, object]:
    """Means over seeds, and the recovery of each."""
    means = {name: round(statistics.mean(s[name] for s in seeds), 4) for name in seeds[0]}
    return means | {"seeds": [round(s["recovery"], 4) for s in seeds]}


def _baseline(name: str, frequencies: Frequencies, seed: int) -> dict[str, float]:
    truth = Truth(frequencies, seed)
    x_RD = torch.cat([next(truth) for _ in range(32)])
    if name == "ica":
        return _figures(truth, baselines.ica(x_RD, 4, seed), 1.0)
    return _figures(truth, baselines.random(x_RD, 4, len(truth.directions_FD), seed), 1.0)


def _figures(truth: Truth, sae: SAE, scale: float) -> dict[str, float]:
    batches = [next(truth) * scale for _ in range(EVALUATED)]
    found = evaluate(sae, batches, EVALUATED * len(batches[0]))
    return {
        "recovery": truth.recovery(sae.W_dec),
        "fvu": found.fvu,
        "l0": found.l0,
        "dead": float((found.frequency_S == 0).double().mean()),
    }
