"""How many planted directions each objective recovers.

Width 64, 256 features of which 4 fire on average, 256 latents (see `planted_vectors`). Each
objective is tried with several settings on the first seed. The best setting is run on the other
seeds.
"""

import statistics
from typing import Any

import torch

from tendril.data.cli import note
from tendril.data.device import cpu_threads
from tendril.models.dictionaries import baselines
from tendril.models.dictionaries.sae import SAE
from tendril.train.config import TrainConfig
from tendril.train.metrics import evaluate
from tendril.train.objectives.registry import make_objective
from tendril.train.trainer import Trainer

from .config import Frequencies, RecoveryBench, Setting
from .measure import machine
from .planted_vectors import PlantedVectors

FAST = 3e-3  # a learning rate for 2000 steps
SETTINGS: dict[Setting, list[dict[str, Any]]] = {
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
EVALUATED = 16  # batches for evaluation, none of which was trained on


def measure(bench: RecoveryBench) -> dict[str, object]:
    """One table per kind of frequencies: objective -> figures."""
    with cpu_threads(1):
        tables = {f: _table(bench, f) for f in bench.frequencies}
    return {"machine": machine(), "steps": bench.steps, "tables": tables}


def recover(
    frequencies: Frequencies, seed: int, steps: int, fields: dict[str, Any], **size: Any
) -> dict[str, float]:
    """Train one dictionary; returns its recovery, FVU, L0 and fraction of dead latents.

    Figures are of fresh vectors. `size` are options of `PlantedVectors`, by default those of the
    tables.
    """
    planted = PlantedVectors(frequencies, seed, **size)
    config = TrainConfig(
        **({"lr": FAST, "dead_after": 100_000} | fields),
        latents=len(planted.directions_FD),
        steps=steps,
        batch_size=planted.batch_size,
        seed=seed,
        device="cpu",
    )
    width = planted.directions_FD.shape[1]
    config.check(width)
    objective = make_objective(config, width)
    trainer = Trainer(config, objective, planted, planted.scale, torch.device("cpu"))
    for _ in range(steps):
        trainer.advance()
    sae = trainer.sae.plain()
    assert isinstance(sae, SAE)
    return _figures(planted, sae, planted.scale)


def _table(bench: RecoveryBench, frequencies: Frequencies) -> dict[str, object]:
    rows: dict[str, object] = {}
    for name in bench.objectives:
        figures = [recover(frequencies, 0, bench.steps, f) for f in SETTINGS[name]]
        best = max(range(len(figures)), key=lambda i: figures[i]["recovery"])
        seeds = [figures[best]]
        for seed in range(1, bench.seeds):
            seeds.append(recover(frequencies, seed, bench.steps, SETTINGS[name][best]))
        rows[name] = _row(seeds) | {"setting": SETTINGS[name][best]}
        note(f"{frequencies} {name}: {rows[name]}")
    for baseline in ("ica", "random"):
        figures = [_baseline(baseline, frequencies, seed) for seed in range(bench.seeds)]
        rows[baseline] = _row(figures)
    return rows


def _row(seeds: list[dict[str, float]]) -> dict[str, object]:
    """Means over seeds, and the recovery for each seed."""
    means = {name: round(statistics.mean(s[name] for s in seeds), 4) for name in seeds[0]}
    return means | {"seeds": [round(s["recovery"], 4) for s in seeds]}


def _baseline(name: str, frequencies: Frequencies, seed: int) -> dict[str, float]:
    planted = PlantedVectors(frequencies, seed)
    x_RD = torch.cat([next(planted) for _ in range(32)])
    if name == "ica":
        return _figures(planted, baselines.ica(x_RD, 4, seed), 1.0)
    return _figures(planted, baselines.random(x_RD, 4, len(planted.directions_FD), seed), 1.0)


def _figures(planted: PlantedVectors, sae: SAE, scale: float) -> dict[str, float]:
    batches = [next(planted) * scale for _ in range(EVALUATED)]
    evaluation = evaluate(sae, batches, EVALUATED * len(batches[0]))
    return {
        "recovery": planted.recovery(sae.W_dec),
        "fvu": evaluation.fvu,
        "l0": evaluation.l0,
        "dead": float((evaluation.frequency_S == 0).double().mean()),
    }
