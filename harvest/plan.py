"""What is settled before the first row: subject, inputs, identity, shapes, and who makes rows."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.device import keep_freed_memory, resolve_device
from data.dihedral import Dihedral
from data.errors import ConfigError
from data.home import store_location
from data.images import ImageSource, open_images
from data.layout import SHARD_INPUTS, Layout, plan_layout
from data.rows import ITEM_BYTES
from data.spec import StoreSpec
from models.hooks import describe_sites
from models.subjects.load import load_subject
from models.subjects.subject import Subject, site_modules
from models.subjects.window import Window, find_window

from .config import HarvestConfig
from .loop import Produce
from .orbits import OrbitRule, orbit_rows
from .vision import PositionRule, vision_rows

SHARD_PATCHES = 2**15  # of orbits, each a pass over a small crop: less than a minute's work


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
