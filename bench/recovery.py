"""How many planted directions each objective recovers.

Rows are those of synthetic stores (`tendril harvest synthetic`), and dictionaries are trained by
the ordinary trainer on the stored shards: width 64, 256 features of which 4 are on in a row on
average, 256 latents; or the preset of SynthSAEBench, reduced. Each objective is tried with several
settings on the first seed. The best setting is run on the other seeds. The recovery is the mean
over features of the largest cosine with a decoder row.
"""

import statistics
import tempfile
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from tendril.data.cli import note
from tendril.data.device import cpu_threads
from tendril.data.store.reader import Store, open_store
from tendril.data.store.truth import ROWS, Truth, open_truth
from tendril.harvest.config import SyntheticConfig
from tendril.harvest.recipes import synth_sae_bench
from tendril.harvest.run import harvest
from tendril.models.dictionaries.checkpoint import load_frequency, load_sae
from tendril.study.measures.planted_recovery import cosines
from tendril.train.config import TrainConfig
from tendril.train.loop import train

from .config import Frequencies, RecoveryBench, Setting
from .measure import machine

FAST = 3e-3  # a learning rate for 2000 steps
BATCH, FITTED, EVALUATED = 1024, 32_768, 16_384
ACTIVE = 4  # features on in a row, on average, that SETTINGS are for
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
# magnitudes from 1.1 to about 2, 1.5 on average
PLAIN = SyntheticConfig(rows=262_144, exponent=0.0, strongest=1.1, weakest=1.1, spread=0.5)
STORES: dict[Frequencies, SyntheticConfig] = {
    "uniform": PLAIN,
    "power-law": replace(PLAIN, exponent=1.0),
    "correlated": replace(PLAIN, correlation_rank=8, correlation=0.9),
    # an eighth of the features and a third of the width; the first feature is on in a tenth of the
    # rows in place of two fifths, so that as large a part of the width is on at once
    "synth_sae_bench": replace(
        synth_sae_bench(), name="", rows=65_536, width=256, features=2048, roots=16, most=0.1
    ),
}


@final
@dataclass(frozen=True)
class Planted:
    """A store whose features are known."""

    store: Store
    truth: Truth
    home: str

    @property
    def active(self) -> float:
        """Features that are on in a row, on average over the first rows."""
        first = slice(0, min(self.store.rows, 4096))
        return float((self.truth.features(first) >= 0).sum(axis=1).mean())

    def fields(self, setting: dict[str, Any]) -> dict[str, Any]:
        """A setting for as many features as are on here: k and the target of L0 are in
        proportion."""
        ratio = max(1, round(self.active / ACTIVE))
        return {n: v * ratio if n in ("k", "target_l0") else v for n, v in setting.items()}


def measure(bench: RecoveryBench) -> dict[str, object]:
    """One table per kind of frequencies: objective -> figures."""
    with cpu_threads(1), tempfile.TemporaryDirectory() as home:
        tables = {f: _table(bench, f, home) for f in bench.frequencies}
    return {"machine": machine(), "steps": bench.steps, "tables": tables}


def planted(frequencies: Frequencies, seed: int, home: str, **fields: Any) -> Planted:
    """Harvest a store, or take the one that is there. `fields` are those of SyntheticConfig, by
    default those of STORES."""
    config = replace(STORES[frequencies], seed=seed, home=home, device="cpu", **fields)
    store = open_store(harvest(config).store)
    return Planted(store, open_truth(store), home)


def recover(
    one: Planted, seed: int, steps: int, fields: dict[str, Any], batch_size: int = BATCH
) -> dict[str, float]:
    """Train or fit one dictionary; returns its recovery, and on held-out rows its FVU, L0 and
    fraction of dead latents."""
    defaults = {"lr": FAST, "dead_after": 100_000, "latents": len(one.truth.directions_FdD)}
    config = TrainConfig(
        **(defaults | fields),
        site=ROWS,
        steps=steps,
        batch_size=batch_size,
        fit_rows=FITTED,
        eval_rows=EVALUATED,
        seed=seed,
        checkpoint_every=steps,
        home=one.home,
        device="cpu",
        threads=1,
    )
    done = train(config, one.store)
    return {
        "recovery": recovery(load_sae(done.run).W_dec.detach().numpy(), one.truth),
        "fvu": done.fvu,
        "l0": done.l0,
        "dead": float((load_frequency(done.run) == 0).double().mean()),
    }


def recovery(rows_SD: np.ndarray, truth: Truth) -> float:
    """The mean over features of the largest cosine with the decoder row of any latent."""
    return float(cosines(rows_SD[:, None], truth.directions_FdD).max(axis=0).mean())


def _table(bench: RecoveryBench, frequencies: Frequencies, home: str) -> dict[str, object]:
    stores = [planted(frequencies, seed, home) for seed in range(bench.seeds)]
    rows: dict[str, object] = {}
    for name in bench.objectives:
        settings = [stores[0].fields(setting) for setting in SETTINGS[name]]
        figures = [recover(stores[0], 0, bench.steps, fields) for fields in settings]
        best = max(range(len(figures)), key=lambda i: figures[i]["recovery"])
        seeds = [figures[best]]
        for seed in range(1, bench.seeds):
            seeds.append(recover(stores[seed], seed, bench.steps, settings[best]))
        rows[name] = _row(seeds) | {"setting": settings[best]}
        note(f"{frequencies} {name}: {rows[name]}")
    for baseline in ("ica", "random"):
        fields = stores[0].fields({"objective": baseline, "k": ACTIVE})
        rows[baseline] = _row([recover(one, seed, 1, fields) for seed, one in enumerate(stores)])
    return rows


def _row(seeds: list[dict[str, float]]) -> dict[str, object]:
    """Means over seeds, and the recovery for each seed."""
    means = {name: round(statistics.mean(s[name] for s in seeds), 4) for name in seeds[0]}
    return means | {"seeds": [round(s["recovery"], 4) for s in seeds]}
