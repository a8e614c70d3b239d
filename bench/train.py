"""A training step against a dense PyTorch loop, and a sweep against its runs one by one.

Both sides of a step do the same work: TopK without AuxK, squared error, clipped gradients, Adam,
unit rows of W_dec, from the same weights and on the same vectors. They alternate in turns of
`steps` steps, eight turns with the warm-up, and their final losses are compared.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tendril.data.cli import note
from tendril.data.device import keep_freed_memory, resolve_device
from tendril.models.dictionaries.sae import SAE
from tendril.train.config import TrainConfig
from tendril.train.objectives.registry import make_objective
from tendril.train.trainer import Trainer

from .config import PAIRS, TrainBench
from .measure import machine, paired, peak_memory
from .plain import PlainLoop
from .rows import sparse_sums
from .sweep import measure_sweep

LARGE_PAIRS = 3  # a dense step of the large size takes a minute
POOL = 2**16  # vectors that both sides cycle through
LAST = 10  # the last losses, which are averaged


@final
class Pool:
    """Batches of vectors in memory, in an endless cycle."""

    def __init__(self, width: int, batch_size: int, device: torch.device) -> None:
        self._x_ND = sparse_sums(POOL, width).to(device)
        self._batch_size, self._batch = batch_size, 0

    def __next__(self) -> Float[Tensor, "n d"]:
        first = self._batch * self._batch_size % POOL
        self._batch += 1
        return self._x_ND[first : first + self._batch_size]

    def state(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"batch": self._batch}

    def restore(self, state: dict[str, int]) -> None:
        """Continue from a state."""
        self._batch = state["batch"]


def measure(bench: TrainBench) -> dict[str, object]:
    """The ratios (ours over the yardstick, larger is better), rates, losses and memory."""
    keep_freed_memory()
    note("a training step against the dense loop ...")
    figures = {"step": _step(bench)}
    if bench.large:
        note("a large step against the dense loop ...")
        figures["large"] = _step(large(bench), LARGE_PAIRS)
    ratios = {f"{name}_over_dense": figure.pop("ratio") for name, figure in figures.items()}
    results: dict[str, object] = {**figures}
    if bench.memory:
        results["memory_mb"] = _memory(bench)
    if bench.sweep:
        note("a sweep of sixteen dictionaries against its runs one by one ...")
        ratios["sweep_over_sequential"], results["sweep"] = measure_sweep(bench.device)
    return (
        {"what": "train", "ratios": ratios, "aux_k": "neither side"}
        | results
        | {
            "config": asdict(bench),
            **machine(),
        }
    )


def large(bench: TrainBench) -> TrainBench:
    """The same benchmark at the size of a language model."""
    return replace(bench, width=4096, latents=32768, steps=1)


def _step(bench: TrainBench, pairs: int = PAIRS) -> dict[str, float]:
    trainer, plain, batches = _sides(bench)
    losses: dict[str, list[float]] = {"ours": [], "dense": []}

    def ours() -> None:
        for _ in range(bench.steps):
            losses["ours"].append(float(trainer.advance()[1].total.detach()))

    def dense() -> None:
        for _ in range(bench.steps):
            losses["dense"].append(float(plain.step(next(batches))))

    times = paired(ours, dense, pairs)
    vectors = bench.steps * bench.batch_size
    ends = {side: statistics.mean(values[-LAST:]) for side, values in losses.items()}
    return {
        "ratio": round(times.ratio, 3),
        "vectors_per_s": round(vectors / statistics.median(times.ours)),
        "dense_vectors_per_s": round(vectors / statistics.median(times.yardstick)),
        "steps": len(losses["ours"]),
        "loss": round(ends["ours"], 6),
        "dense_loss": round(ends["dense"], 6),
        "loss_apart": round(abs(ends["ours"] / ends["dense"] - 1), 6),
    }


def _sides(bench: TrainBench) -> tuple[Trainer, PlainLoop, Pool]:
    """Ours and the yardstick with the same initial weights, and the yardstick's batches."""
    device = resolve_device(bench.device)
    config = TrainConfig(
        objective="topk",
        latents=bench.latents,
        k=bench.k,
        batch_size=bench.batch_size,
        steps=8 * bench.steps,
        lr_decay=0.0,
        aux_weight=0.0,
        bias="mean",
    )
    batches, others = (Pool(bench.width, bench.batch_size, device) for _ in range(2))
    objective = make_objective(config, bench.width)
    trainer = Trainer(config, objective, batches, None, device)
    assert isinstance(trainer.sae, SAE)
    return trainer, PlainLoop(trainer.sae, config), others


def _memory(bench: TrainBench) -> dict[str, float]:
    """The peak memory of a step in MiB, with gradients, beyond what is kept between steps.

    Each side runs in its own process. `pre_activations` is the size of one [N, S] tensor.
    """
    peaks = {"pre_activations": 4 * bench.batch_size * bench.latents / 2**20}
    for side in ("ours", "dense"):
        code = (
            f"from tendril.bench.train import peak; peak({side!r}, {json.dumps(asdict(bench))!r})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        peaks[side] = float(done.stdout.split()[-1])
    return {side: round(megabytes, 1) for side, megabytes in peaks.items()}


def peak(side: str, fields: str) -> None:
    """Print the figure of `_memory` for one side."""
    bench = TrainBench(**json.loads(fields))
    trainer, plain, batches = _sides(bench)

    def step() -> None:
        _ = trainer.advance() if side == "ours" else plain.step(next(batches))

    step()  # allocates Adam's moments, which are kept
    for parameter in (*trainer.sae.parameters(), *plain.parameters()):
        parameter.grad = None
    on_gpu = trainer.sae.b_dec.is_cuda
    before = _peak(on_gpu, forget=True)
    step()
    step()
    print(_peak(on_gpu) - before)


def _peak(on_gpu: bool, *, forget: bool = False) -> float:
    """The peak memory so far in MiB; `forget` resets it to what is in use now."""
    if on_gpu:
        if forget:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if forget:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: see man 5 proc
    return peak_memory()
