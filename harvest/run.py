"""A config -> a complete store: plan it, say what it will cost, write it."""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.command import note
from data.device import keep_freed_memory, resolve_device
from data.dihedral import Dihedral
from data.errors import ConfigError
from data.folder import SCHEME, open_folder
from data.home import store_location
from data.images import ImageSource, first_readable, open_images
from data.layout import SHARD_INPUTS, Layout, plan_layout
from data.record import is_complete, read_about
from data.rows import ITEM_BYTES
from data.spec import StoreSpec
from data.warp import Warp
from models.hooks import describe_sites, recording
from models.subjects.load import load_subject
from models.subjects.subject import Subject, site_modules
from models.subjects.window import Window, find_window

from .config import HarvestConfig
from .loop import Produce, write_store
from .orbits import PATCHES, OrbitRule, image_orbits, orbit_rows
from .vision import PositionRule, to_rgb, vision_rows

SHARD_PATCHES = 2**15  # of orbits, each a pass over a small crop: less than a minute's work
COMPRESSED = 0.3  # of raw float16, about what zstd leaves of rows after a ReLU


@dataclass(frozen=True)
class Plan:
    """What is settled without running the subject."""

    config: HarvestConfig
    subject: Subject
    source: ImageSource
    spec: StoreSpec
    location: str
    device: torch.device
    window: Window | None = None  # with a group: what reads its patches
    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True)
class Harvest:
    """What a harvest made, or found made already."""

    store: str
    rows: int
    seconds: float
    rows_per_s: float
    reused: bool
    unreadable: int = 0


def harvest(config: HarvestConfig) -> Harvest:
    """Harvest what a config asks for, or find it made already.

    A harvest that was stopped goes on where it was. Raises children of TendrilError for
    everything that the config, its paths or its files can cause.
    """
    began = time.perf_counter()
    plan = make_plan(config)
    folder = open_folder(plan.location)
    if not config.overwrite and is_complete(folder):
        about = read_about(folder)
        _say_what_differs(plan, about["layout"])
        rows = about["layout"]["inputs"] * about["layout"]["rows_per_input"]
        return Harvest(plan.location, rows, _since(began), 0.0, reused=True)
    layout = make_layout(plan)
    if plan.rank == 0:
        note(estimate(plan, layout)["sentence"])
    done = write_store(
        plan.location,
        plan.spec,
        layout,
        producer(plan, layout.inputs_per_slice),
        origin=_origin(plan),
        environment=environment_of(plan.device),
        overwrite=config.overwrite,
        progress=True,
        overlap=plan.device.type != "cpu",
        rank=plan.rank,
        ranks=plan.ranks,
        declared=config.ranks > 0 or plan.ranks > 1,
    )
    if done.invalid_inputs:
        note(
            f"{done.invalid_inputs} of {layout.inputs} inputs could not be read; their rows are "
            f"marked invalid, and {plan.location}/records says why."
        )
    return Harvest(
        store=plan.location,
        rows=layout.rows,
        seconds=_since(began),
        rows_per_s=round(done.rows / max(done.seconds, 1e-9), 1),
        reused=False,
        unreadable=done.invalid_inputs,
    )


def producer(plan: Plan, inputs_per_slice: int) -> Produce:
    """What turns slices of a plan's inputs into rows."""
    config, workers = plan.config, plan.config.workers or os.cpu_count() or 1
    if plan.window:
        return orbit_rows(
            plan.subject,
            plan.source,
            plan.window,
            orbit_rule(config),
            device=plan.device,
            workers=workers,
            batch_size=inputs_per_slice,
            dtype=config.dtype,
        )
    return vision_rows(
        plan.subject,
        plan.source,
        plan.spec.sites,
        PositionRule(config.positions, config.per_input, config.seed),
        device=plan.device,
        workers=workers,
        batch_size=inputs_per_slice,
        dtype=config.dtype,
    )


def orbit_rule(config: HarvestConfig) -> OrbitRule:
    """The group that a config takes its anchors through. Raises ConfigError."""
    group = Dihedral(config.rotations, config.reflections)
    return OrbitRule(group, config.positions, config.per_input, config.turn, config.seed)


def make_plan(config: HarvestConfig) -> Plan:
    """Open subject and inputs, and settle the identity of the harvest."""
    for value, least, flag in (
        (config.rotations, 0, "--rotations"),
        (config.batch_size, 1, "--batch-size"),
        (config.workers, 0, "--workers"),
    ):
        if value < least:
            raise ConfigError(f"{flag} wants a whole number from {least} on, and got {value}.")
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    _make_deterministic()
    device = resolve_device(config.device)
    source = open_images(config.inputs, config.limit)
    subject = load_subject(
        config.subject, weights=config.weights, normalisation=config.normalisation
    )
    sites = tuple(s for group in config.sites for s in group.split(",") if s)
    site_modules(subject, sites)
    everywhere = config.per_input == "all"
    drawn = {"rule": config.positions, "per_input": config.per_input}
    inputs = source.identity | {"size": subject.input_size}
    window = find_window(subject, sites) if config.rotations else None
    if window:
        inputs["orbit"] = orbit_rule(config).identity(window)
    spec = StoreSpec(
        subject=subject.identity,
        inputs=inputs,
        sites=sites,
        positions={"rule": "all"} if everywhere else drawn,
        seed=0 if everywhere and not window else config.seed,
        dtype=config.dtype,
    )
    name = config.name or f"{subject.name}-{Path(source.origin).name}"
    location = store_location(spec.folder(name), config.home)
    rank, ranks = process_of(config)
    return Plan(config, subject, source, spec, location, device, window, rank, ranks)


def process_of(config: HarvestConfig) -> tuple[int, int]:
    """Which process of how many this is: from the flags, or from a launcher such as torchrun."""
    rank, ranks = config.rank, config.ranks
    if not ranks:
        rank = int(os.environ.get("RANK", 0))
        ranks = int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= rank < ranks:
        raise ConfigError(f"--rank counts from 0 to --ranks less one, and is {rank} of {ranks}.")
    if ranks > 1 and config.overwrite:
        raise ConfigError(
            "--overwrite is for one process alone, as the others could not tell the old store from "
            "the new one; remove it with `python -m data rm STORE`, then start all of them."
        )
    return rank, ranks


def make_layout(plan: Plan) -> Layout:
    """Find the sites' shapes with one pass, and cut the rows into chunks and shards.

    Raises ConfigError where more positions are asked for than there are.
    """
    config = plan.config
    shapes = describe_sites(plan.subject, plan.spec.sites)
    first = plan.spec.sites[0]
    cells = math.prod(shapes[first].grid)
    where = f"of the map of {first}"
    if plan.window:
        cells = len(plan.window.inside(plan.subject.input_size))
        where += f" whose receptive field ({plan.window.size} pixels) lies within the image"
    per_input = cells if config.per_input == "all" else config.per_input
    if not 1 <= per_input <= cells:
        raise ConfigError(
            f"--per-input wants `all` or a number from 1 to the {cells} positions {where}, and "
            f"got {per_input}."
        )
    elements = len(orbit_rule(config).group) if plan.window else 0
    return plan_layout(
        inputs=len(plan.source),
        rows_per_input=per_input,
        widths={site: shape.width for site, shape in shapes.items()},
        grids={site: shape.grid for site, shape in shapes.items()},
        inputs_per_slice=config.batch_size,
        compressor=config.compressor,
        item_bytes=ITEM_BYTES[config.dtype],
        columns=("y", "x", "turn") if plan.window else ("y", "x"),
        elements=elements,
        shard_inputs=max(1, min(SHARD_INPUTS, SHARD_PATCHES // max(per_input * elements, 1))),
    )


def estimate(plan: Plan, layout: Layout) -> dict[str, Any]:
    """Rows, bytes and seconds that a harvest will take, with a sentence for the terminal."""
    elements = max(layout.elements, 1)
    raw = layout.rows * elements * sum(layout.widths.values()) * ITEM_BYTES[plan.config.dtype]
    stored = raw if layout.compressor == "none" else int(raw * COMPRESSED)
    pace = seconds_per_orbit(plan) * layout.rows_per_input if plan.window else 0.0
    seconds = layout.inputs * (seconds_per_input(plan) + pace)
    of_group = f" of {layout.elements} elements" if plan.window else ""
    sentence = (
        f"{layout.inputs:,} inputs x {layout.rows_per_input} positions = {layout.rows:,} "
        f"rows{of_group} of "
        + ", ".join(f"{site} ({width})" for site, width in layout.widths.items())
        + f"; about {stored / 1e6:,.0f} MB ({raw / 1e6:,.0f} MB raw {plan.config.dtype}) and "
        f"{_duration(seconds)} on {plan.device}, into {plan.location}"
    )
    return {
        "rows": layout.rows,
        "bytes": stored,
        "seconds": round(seconds, 1),
        "sentence": sentence,
    }


def seconds_per_input(plan: Plan, inputs: int = 4) -> float:
    """Time of the truncated forward pass on a few images of the source, after a warm-up."""
    size = plan.subject.input_size
    first = first_readable(plan.source, size)
    images = to_rgb([plan.source.load(first, size)] * inputs, plan.device)
    plan.subject.module.to(plan.device)
    with (
        recording(plan.subject.module, site_modules(plan.subject, plan.spec.sites)) as forward,
        torch.inference_mode(),
    ):
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            for acts in forward(plan.subject.preprocess(images)).values():
                acts.flatten()[0].item()  # waits for the GPU
            seconds = time.perf_counter() - began
    return seconds / inputs


def seconds_per_orbit(plan: Plan) -> float:
    """Time of one anchor through the whole group, after a warm-up."""
    assert plan.window is not None, "asked for where there is a group"
    rule, size = orbit_rule(plan.config), plan.subject.input_size
    warp = Warp(rule.group, plan.window.size, plan.window.colour, plan.device)
    image = to_rgb([plan.source.load(first_readable(plan.source, size), size)], plan.device)[0]
    plan.window.module.to(plan.device)
    one_A2 = np.array(plan.window.inside(size)[:1])
    seconds = 0.0
    with plan.window.reading(PATCHES[plan.device.type]) as read, torch.inference_mode():
        for _ in range(2):  # the first one warms up
            began = time.perf_counter()
            image_orbits(image, one_A2, np.zeros(1), plan.window, warp, read)
            seconds = time.perf_counter() - began
    return seconds


def _make_deterministic() -> None:
    """The same device gives the same bits, and a GPU the CPU's values but for rounding."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def environment_of(device: torch.device) -> dict[str, Any]:
    """What makes the same rows the same bits: device, CPU threads, version."""
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    return {
        "device": gpu or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _origin(plan: Plan) -> dict[str, str]:
    """Where things were found, for those who come back: relative to the store's folder, and
    no part of its identity. To a store at a URL nothing is relative, so names must do."""

    def relative(text: str) -> str:
        if not text or not Path(text).exists():
            return text
        return Path(text).name if SCHEME in plan.location else os.path.relpath(text, plan.location)

    subject, _, function = plan.config.subject.partition(".py:")
    return {
        "inputs": relative(plan.source.origin),
        "subject": f"{relative(subject + '.py')}:{function}" if function else subject,
        "weights": relative(plan.config.weights),
        "normalisation": plan.config.normalisation,
    }


def _say_what_differs(plan: Plan, layout: Mapping[str, Any]) -> None:
    stored = layout["compressor"]
    if stored != plan.config.compressor:
        note(
            f"the store is there already, compressed with {stored} and not with "
            f"{plan.config.compressor}; the rows are the same (--overwrite makes it anew)."
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 2)
