"""Vectors/s of a training step beside the plain dense loop, and of a sweep beside its runs one
after the other.

Both sides of a step do the same work: TopK without AuxK, squared error, clipped gradients,
Adam, rows of W_dec at norm 1, from the same weights and on the same vectors. They take turns
of `steps` steps, eight with the warm-up, so that their losses can be compared at the end.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from tendril.data.cli import note
from tendril.data.device import keep_freed_memory, resolve_device
from tendril.models.dictionaries.sae import SAE
from tendril.train.config import TrainConfig
from tendril.train.objectives.base import make_objective
from tendril.train.trainer import Trainer

from .measure import PAIRS, machine, paired
from .peak import peak_memory
from .plain import PlainLoop
from .sweep import measure_sweep

LARGE_PAIRS = 3  # a dense step of that size takes a minute
POOL = 2**16  # vectors that both sides go round in
LAST = 10  # losses that are averaged, at the end


@dataclass(frozen=True)
class TrainBench:
    """Our training step beside the dense loop, and a sweep beside runs one after the other."""

    width: int = 480
    """D."""
    latents: int = 3840
    """S."""
    k: int = 32
    """Latents on."""
    batch_size: int = 4096
    """Vectors a step."""
    steps: int = 25
    """Steps a turn; there are eight turns, the first to warm up."""
    large: bool = False
    """Also D 4096, S 32768, a step a turn (12 GB of memory, five minutes on two cores)."""
    memory: bool = True
    """Also measure the memory that a step takes, in processes of their own."""
    sweep: bool = True
    """Also measure a sweep of sixteen dictionaries of 960 latents."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where both sides run."""


@final
class Pool:
    """Vectors in memory, batch after batch, round and round."""

    def __init__(self, width: int, batch_size: int, device: torch.device) -> None:
        self._x_ND = sparse_sums(POOL, width).to(device)
        self._batch_size, self._batch = batch_size, 0

    def __next__(self) -> Float[Tensor, "n d"]:
        first = self._batch * self._batch_size % POOL
        self._batch += 1
        return self._x_ND[first : first + self._batch_size]

    def state(self) -> dict[str, int]:
        """How many batches have been given."""
        return {"batch": self._batch}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._batch = state["batch"]


def sparse_sums(count: int, width: int) -> Float[Tensor, "n d"]:
    """Sums of 20 of 4 D random directions each, with amounts from 0 to 1, and some noise;
    E||x||^2 = D."""
    generator = torch.Generator().manual_seed(0)
    directions = functional.normalize(torch.randn(4 * width, width, generator=generator))
    which = torch.randint(4 * width, (count, 20), generator=generator)
    amounts = torch.rand(count, 20, generator=generator)
    x_ND = functional.embedding_bag(which, directions, per_sample_weights=amounts, mode="sum")
    x_ND += 0.02 * torch.randn(count, width, generator=generator)
    return x_ND * (width / x_ND.square().sum(dim=1).mean()).sqrt()


def measure(bench: TrainBench) -> dict[str, object]:
    """All ratios (ours over the yardstick, larger is better) and what they were made of."""
    keep_freed_memory()
    note("a step against the dense loop ...")
    figures = {"step": _step(bench)}
    if bench.large:
        note("a large step against the dense loop ...")
        figures["large"] = _step(large(bench), LARGE_PAIRS)
    ratios = {f"{name}_over_dense": figure.pop("ratio") for name, figure in figures.items()}
    told: dict[str, object] = {**figures}
    if bench.memory:
        told["memory_mb"] = _memory(bench)
    if bench.sweep:
        note("sixteen dictionaries in one pass against one after the other ...")
        ratios["sweep_over_sequential"], told["sweep"] = measure_sweep(bench.device)
    return (
        {"what": "train", "ratios": ratios, "aux_k": "neither side"}
        | told
        | {
            "config": asdict(bench),
            **machine(),
        }
    )


def large(bench: TrainBench) -> TrainBench:
    """The same at the size of a language model."""
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
    """Ours and the yardstick, from the same weights."""
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
    """Megabytes that a step takes at its peak, gradients counted, beyond what stays from step
    to step; a process a side. `pre_activations` is what one [N, S] takes."""
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
    """Print the megabytes of `_memory` for one side."""
    bench = TrainBench(**json.loads(fields))
    trainer, plain, batches = _sides(bench)

    def step() -> None:
        _ = trainer.advance() if side == "ours" else plain.step(next(batches))

    step()  # makes Adam's moments, which stay
    for parameter in (*trainer.sae.parameters(), *plain.parameters()):
        parameter.grad = None
    on_gpu = trainer.sae.b_dec.is_cuda
    before = _peak(on_gpu, forget=True)
    step()
    step()
    print(_peak(on_gpu) - before)


def _peak(on_gpu: bool, *, forget: bool = False) -> float:
    """The most megabytes used so far; `forget` makes it those in use now."""
    if on_gpu:
        if forget:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if forget:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: see man 5 proc
    return peak_memory()
