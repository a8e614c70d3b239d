"""A harvest against the bare forward pass, the truncated pass against the full one, and peak
memory against that for ten times the inputs.

The subject is InceptionV1. Without `--weights` its weights are random, which does not change the
times. Without `--inputs` the photographs are dead-leaves images saved as JPEG.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from safetensors.torch import save_file

from tendril.data.cli import note
from tendril.data.device import resolve_device
from tendril.data.inputs.images import open_images
from tendril.data.inputs.procedural import dead_leaves
from tendril.harvest.config import HarvestConfig
from tendril.harvest.loop import write_store
from tendril.harvest.vision_plan import plan_vision
from tendril.harvest.vision_rows import PositionRule, to_rgb, vision_rows
from tendril.models.sites.hooks import recording
from tendril.models.subjects.inception import InceptionV1

from .config import HarvestBench
from .measure import machine, paired

PEAK = """
import json, sys
from tendril.bench.measure import peak_memory
from tendril.harvest.config import HarvestConfig
from tendril.harvest.run import harvest
harvest(HarvestConfig(**json.loads(sys.argv[1])))
print(peak_memory())
"""


def measure(bench: HarvestBench) -> dict[str, object]:
    """The ratios (ours over the yardstick, larger is better), rates and peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = _config(bench, folder)
        rates: dict[str, float] = {}
        ratios: dict[str, float] = {}
        settings: tuple[tuple[int | Literal["all"], str], ...] = ((10, ""), ("all", "_all"))
        for per_input, suffix in settings:
            note(f"harvest of {per_input} positions against the bare forward pass ...")
            limit = bench.images if per_input == 10 else -(-bench.images // 4)
            ours = replace(config, per_input=per_input, limit=limit)
            ratio, rows_per_s = _harvest_over_forward(ours, folder)
            ratios[f"harvest_over_forward{suffix}"] = ratio
            rates[f"harvest_rows_per_s{suffix}"] = rows_per_s
        note("truncated pass against the full pass ...")
        ratios["truncated_over_full"], rates["truncated_images_per_s"] = _truncated(config)
        memory = _memory(config, folder) if bench.memory else {}
        if memory:
            ratios["memory_tenth_over_whole"] = round(
                memory["peak_mb_small"] / memory["peak_mb_large"], 3
            )
    return {"what": "harvest", "ratios": ratios, **rates, **memory, **machine()} | {
        "images": bench.images,
        "batch_size": bench.batch_size,
    }


def _config(bench: HarvestBench, folder: Path) -> HarvestConfig:
    inputs, weights = bench.inputs, bench.weights
    if not inputs:
        inputs = str(folder / "photographs")
        _photographs(Path(inputs), bench.images * (10 if bench.memory else 1))
    if not weights:
        weights = str(folder / "random.safetensors")
        torch.manual_seed(0)
        save_file(InceptionV1().state_dict(), weights)
    return HarvestConfig(
        inputs=inputs,
        weights=weights,
        sites=("mixed3b",),
        limit=bench.images,
        batch_size=bench.batch_size,
        device=bench.device,
        home=str(folder),
    )


def _photographs(folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(dead_leaves(0, i % 32, 256)).save(folder / f"{i:05d}.jpg")


def _harvest_over_forward(config: HarvestConfig, folder: Path) -> tuple[float, float]:
    """JPEG files to a complete store, against the network alone on prepared tensors.

    The yardstick runs the unmodified network; the harvest fuses its convolutions.
    """
    plan = plan_vision(config, resolve_device(config.device))
    layout = plan.layout()
    rule = PositionRule(config.positions, config.per_input, config.seed)
    produce = vision_rows(
        plan.subject,
        plan.source,
        plan.spec.sites,
        rule,
        device=plan.device,
        workers=os.cpu_count() or 1,
        batch_size=config.batch_size,
        dtype=config.dtype,
    )
    batches = [
        plan.subject.preprocess(
            to_rgb([plan.source.load(i, plan.subject.input_size) for i in part], plan.device)
        )
        for shard in range(layout.shards)
        for part in layout.slices(shard)
    ]
    bare = InceptionV1(until="mixed3b").to(plan.device).eval().requires_grad_(False)
    weights = plan.subject.module.state_dict()
    bare.load_state_dict({name: weights[name] for name in bare.state_dict()})
    bare.normalisation = plan.subject.module.normalisation  # type: ignore[assignment]

    def ours() -> None:
        path = folder / "store" / "measured"
        write_store(
            path,
            plan.spec,
            layout,
            produce,
            origin={},
            environment={},
            overwrite=True,
            overlap=plan.device.type != "cpu",
        )

    @torch.inference_mode()
    def yardstick() -> None:
        for batch in batches:
            bare(batch)

    times = paired(ours, yardstick)
    return round(times.ratio, 3), round(layout.rows / sorted(times.ours)[len(times.ours) // 2], 1)


def _truncated(config: HarvestConfig) -> tuple[float, float]:
    """The pass that stops after mixed3b, against the full pass."""
    plan = plan_vision(config, resolve_device(config.device))
    module = plan.subject.module.to(plan.device)
    source = open_images(config.inputs, config.batch_size)
    images = [source.load(i, plan.subject.input_size) for i in range(len(source))]
    batch = plan.subject.preprocess(to_rgb(images, plan.device))
    with recording(module, {"mixed3b": ("mixed3b",)}) as forward, torch.inference_mode():
        times = paired(lambda: forward(batch), lambda: module(batch))
    return round(times.ratio, 3), round(len(images) / min(times.ours), 1)


def _memory(config: HarvestConfig, folder: Path) -> dict[str, float]:
    """Peak memory of a process that harvests, and of one that harvests ten times as many inputs.

    Both harvest more than one shard; with less, the writer would not reach its full memory.
    """
    peaks = []
    for factor in (1, 10):
        note(f"peak memory with {factor} x {config.limit} inputs ...")
        small = {
            "inputs": config.inputs,
            "weights": config.weights,
            "sites": list(config.sites),
            "limit": factor * (config.limit or 1),
            "per_input": "all",
            "home": str(folder / f"memory{factor}"),
        }
        done = subprocess.run(
            [sys.executable, "-c", PEAK, json.dumps(small)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(float(done.stdout.split()[-1]))
    return {"peak_mb_small": round(peaks[0], 1), "peak_mb_large": round(peaks[1], 1)}
