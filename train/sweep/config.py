"""What a sweep is asked for: which runs, as a grid. No torch here: `--help` must be quick."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from tendril.data.errors import ConfigError

from ..config import ONLY_FOR, TrainConfig, near

SPARSITIES = ("k", "l1", "l0", "target_l0")
FIXED_SIZE = ("pca", "ica", "neurons")  # the width of the site says how many directions


@dataclass(frozen=True)
class SweepConfig:
    """Runs that differ in objective, size, sparsity and seed, trained in one pass."""

    base: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=TrainConfig
    )
    """All that the runs have in common."""
    objectives: tuple[str, ...] = ("topk",)
    """Objectives and baselines, as --objective names them."""
    sizes: tuple[int, ...] = ()
    """Numbers of latents; empty: --latents."""
    sparsities: tuple[str, ...] = ("k=8,16,32",)
    """What objectives are varied in, as FIELD=VALUE,VALUE; those of other objectives are left
    out, e.g. k=8,16,32 l1=0.5,1,2."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the initial weights; the order of the data is --order (or --seed) for all."""
    spread: Literal["all", "middle"] = "all"
    """Where all seeds are trained: at every sparsity, or at the middle one alone."""
    dry_run: bool = False
    """Only say how many runs, bytes and seconds it would be, after three steps of each setting."""

    def runs(self) -> list[TrainConfig]:
        """The config of every run, each once. Raises ConfigError."""
        found: dict[str, TrainConfig] = {}
        for fields in self._grid():
            run = dataclasses.replace(self.base, order=self.base.order_seed, **fields)
            found.setdefault(repr(run.identity()), run)
        return list(found.values())

    def _grid(self) -> Iterator[dict[str, Any]]:
        varied: dict[str, tuple[int | float, ...]] = {}
        for text in self.sparsities:
            field, values = _values(text)
            varied[field] = varied.get(field, ()) + values  # k=4 k=8 is k=4,8
        sizes = self.sizes or (self.base.latents,)
        for name, size in itertools.product(self.objectives, sizes):
            objective = _objective(name)
            if objective in FIXED_SIZE and size != sizes[0]:
                continue
            own = [field for field in varied if field in ONLY_FOR[objective]]
            points = list(itertools.product(*(varied[field] for field in own)))
            for number, point in enumerate(points):
                middle = number == len(points) // 2 or self.spread == "all"
                seeds = self.seeds if middle else self.seeds[:1]
                if objective in ("pca", "neurons"):  # nothing is drawn
                    seeds = self.seeds[:1]
                for seed in seeds:
                    fields = dict(zip(own, point, strict=True))
                    yield {"objective": objective, "latents": size, "seed": seed} | fields


def _objective(name: str) -> Any:
    if name not in ONLY_FOR:
        raise ConfigError(
            f"--objectives are among {', '.join(ONLY_FOR)}, and {name!r} is not"
            f"{near(name, ONLY_FOR)}."
        )
    return name


def _values(text: str) -> tuple[str, tuple[int | float, ...]]:
    """The field and the values of FIELD=VALUE,VALUE."""
    name, _, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if name not in SPARSITIES or not values:
        raise ConfigError(
            f"--sparsities are given as FIELD=VALUE,VALUE with a field of {', '.join(SPARSITIES)}"
            f", and not as {text!r}{near(name, SPARSITIES)}."
        )
    kind = int if name == "k" else float
    try:
        return name, tuple(kind(value) for value in values.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--sparsities {text!r} should give numbers between commas; write it as "
            f"{name}={'8,16,32' if name == 'k' else '0.5,1,2'}."
        ) from error
