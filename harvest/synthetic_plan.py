"""The plan of a store of rows that no network made."""

import time
from dataclasses import asdict, dataclass
from typing import Any, final

import torch

from tendril.data.cli import note
from tendril.data.errors import ConfigError
from tendril.data.store.layout import Layout, plan_layout
from tendril.data.store.spec import StoreSpec
from tendril.data.store.truth import COORDINATES, DIRECTIONS, FEATURES, ROWS, Constants

from .config import SyntheticConfig
from .loop import Produce
from .plan import Plan
from .synthetic_rows import Features, Manifolds, Source, SyntheticRows, largest_cosine

VERSION = 1  # of how rows follow from a config
TREES = ("roots", "children", "depth", "exclusive")
MAGNITUDES = ("strongest", "weakest", "spread")
OF_FEATURES = (*MAGNITUDES, *TREES, "orthogonalise", "correlation_rank", "correlation")
OF_MANIFOLDS = ("shape", "dimension", "subspaces")
OF_BOTH = ("width", "features", "active", "exponent", "most", "least", "per_input")
MOST_VALUES = 2**31  # of all directions
KIND = "synthetic"


@final
@dataclass(frozen=True)
class SyntheticPlan(Plan):
    """The plan of a store of rows that no network made."""

    config: SyntheticConfig
    source: Source

    @property
    def settings(self) -> SyntheticConfig:
        return self.config

    @property
    def truth(self) -> Constants:
        return {DIRECTIONS: self.source.directions_FdD}

    def producer(self, inputs_per_slice: int) -> Produce:
        return SyntheticRows(self.source)

    def layout(self) -> Layout:
        config, places = self.config, self.source.places
        size = self.source.directions_FdD.shape[1]
        widths = {ROWS: config.width, FEATURES: places, COORDINATES: places * size}
        return plan_layout(
            inputs=-(-config.rows // config.per_input),
            rows_per_input=config.per_input,
            widths=widths,
            grids=dict.fromkeys(widths, (config.per_input, 1)),
            inputs_per_slice=config.batch_size,
            compressor=config.compressor,
            item_bytes=4,
        )

    def seconds(self, layout: Layout) -> float:
        self.source.rows(0)
        began = time.perf_counter()
        self.source.rows(0)
        return (time.perf_counter() - began) * layout.inputs

    def sources(self) -> dict[str, str]:
        return {"inputs": KIND, "subject": KIND}


def plan_synthetic(config: SyntheticConfig, device: torch.device) -> SyntheticPlan:
    """Draw the features, and fix the identity of the store. Raises ConfigError."""
    check(config)
    source = Features(config) if config.kind == "features" else Manifolds(config)
    if config.kind == "features" and len(source.directions_FdD) > 1:
        closest = largest_cosine(source.directions_FdD[:, 0])
        note(f"the mean largest cosine of a direction with another one is {closest:.3f}.")
    spec = StoreSpec(
        subject={"name": f"{KIND} {config.kind}", "kind": config.kind, "version": VERSION}
        | settings_of(config),
        inputs={"kind": KIND, "count": -(-config.rows // config.per_input)},
        sites=(ROWS, FEATURES, COORDINATES),
        positions={"rule": "all"},
        seed=config.seed,
        dtype=config.dtype,
    )
    return SyntheticPlan(spec, f"{KIND}-{config.kind}", device, config, source)


def settings_of(config: SyntheticConfig) -> dict[str, Any]:
    """The fields of a config that determine its rows."""
    used = OF_BOTH + (OF_FEATURES if config.kind == "features" else OF_MANIFOLDS)
    if config.exclusive:  # absent otherwise, so that names of stores of manifolds stay
        used += ("exclusive",)
    return {name: value for name, value in asdict(config).items() if name in used}


def config_of(spec: dict[str, Any], **fields: Any) -> SyntheticConfig:
    """The config that a spec is of."""
    subject = spec["subject"]
    rows = spec["inputs"]["count"] * subject["per_input"]
    settings = {name: subject[name] for name in subject if name not in ("name", "version")}
    return SyntheticConfig(rows=rows, seed=spec["seed"], **settings, **fields)


def check(config: SyntheticConfig) -> None:
    """Raise ConfigError where a value cannot be used."""
    least = {"rows": 1, "width": 1, "features": 1, "per_input": 1, "orthogonalise": 0, "roots": 0}
    least |= {"children": 1, "depth": 0, "correlation_rank": 0, "dimension": 1, "spread": 0}
    for name, low in least.items():
        if getattr(config, name) < low:
            raise ConfigError(
                f"--{name.replace('_', '-')} must be at least {low}; got {getattr(config, name)}."
            )
    d = 1 if config.kind == "features" else config.dimension
    if config.features * d * config.width > MOST_VALUES:
        raise ConfigError(
            f"--features times --dimension times --width must be at most {MOST_VALUES:,}, the "
            f"values of all directions; got {config.features * d * config.width:,}. Lower one."
        )
    if not 0 < config.most <= 1:
        raise ConfigError(f"--most must be above 0 and at most 1; got {config.most:g}.")
    if not 0 <= config.least <= config.most:
        raise ConfigError(
            f"--least must be from 0 to --most, {config.most:g}; got {config.least:g}."
        )
    if config.active == 0 and config.least == 0:
        raise ConfigError("--active 0 needs --least, the probability of the last feature; got 0.")
    if not 0 <= config.active <= config.most * config.features:
        raise ConfigError(
            f"--active must be from 0 to {config.most * config.features:g}, --features "
            f"times --most; got {config.active:g}. Raise --most, or lower --active."
        )
    if not 0 <= config.exponent <= 10:
        raise ConfigError(f"--exponent must be from 0 to 10; got {config.exponent:g}.")
    if not 0 <= config.correlation < 1:
        raise ConfigError(f"--correlation must be from 0 to below 1; got {config.correlation:g}.")
    if config.roots > config.features:
        raise ConfigError(
            f"--roots must be at most --features, {config.features}; got {config.roots}."
        )
    if config.kind == "manifolds":
        check_manifolds(config)


def check_manifolds(config: SyntheticConfig) -> None:
    """Raise ConfigError for manifolds that do not fit."""
    d, width = config.dimension, config.width
    if d > width:
        raise ConfigError(f"--dimension must be at most --width, {width}; got {d}.")
    if config.exclusive and config.active != 1:
        raise ConfigError(
            f"--active must be 1 for manifolds of which exactly one is on in a row; got "
            f"{config.active:g}. Pass --active 1, or leave out --exclusive."
        )
    if config.shape in ("torus", "circle") and d % 2:
        raise ConfigError(f"--dimension must be even for --shape {config.shape}; got {d}.")
    if config.shape == "interval" and d != 1:
        raise ConfigError(f"--dimension must be 1 for --shape interval; got {d}.")
    if config.subspaces == "orthogonal" and config.features * d > width:
        raise ConfigError(
            f"--features must be at most {width // d} for orthogonal subspaces of dimension {d} in "
            f"width {width}; got {config.features}. Raise --width, or pass --subspaces random."
        )
