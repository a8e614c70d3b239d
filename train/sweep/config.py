"""The configuration of a sweep: a grid of runs. No torch here: `--help` must answer at once."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

import tyro

from tendril.data.errors import ConfigError

from ..config import FIXED_SIZE, OBJECTIVES, SPARSITIES, TrainConfig, check_choice, fields_of, near
from ..groups import FROZEN, Control


@final
@dataclass(frozen=True)
class SweepConfig:
    """Runs that differ in objective, size, sparsity and seed, trained in one pass."""

    objectives: tuple[str, ...] = ("topk",)
    """Objectives and baselines of the grid. OBJECTIVE:CONTROL trains it in part, with control
    frozen-decoder, soft-frozen-decoder or frozen-encoder, e.g. topk topk:frozen-decoder."""
    sizes: tuple[int, ...] = ()
    """Numbers of latents; by default --latents alone."""
    sparsities: tuple[str, ...] = ("k=8,16,32",)
    """Values that fields take, as FIELD=VALUE,VALUE with a field of k, l1, l0 or target_l0. Each
    objective takes those of its own fields, e.g. k=8,16,32 l1=0.5,1,2."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the initial weights. The order of the data is --order (or --seed) for all runs."""
    spread: Literal["all", "middle"] = "all"
    """Sparsities that are trained with all seeds: every one, or only the middle one."""
    base: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=TrainConfig
    )
    """What all runs have in common."""

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
            objective, control = _objective(name, self.base.control)
            if objective in FIXED_SIZE and size != sizes[0]:
                continue
            own = [field for field in varied if field in fields_of(objective)]
            points = list(itertools.product(*(varied[field] for field in own)))
            for number, point in enumerate(points):
                middle = number == len(points) // 2 or self.spread == "all"
                seeds = self.seeds if middle else self.seeds[:1]
                if objective in ("pca", "neurons"):  # nothing is drawn
                    seeds = self.seeds[:1]
                for seed in seeds:
                    fields = dict(zip(own, point, strict=True))
                    grid = {"objective": objective, "latents": size, "seed": seed}
                    yield grid | {"control": control} | fields


def _objective(text: str, control: Control) -> tuple[Any, Any]:
    """The objective and the control of OBJECTIVE or OBJECTIVE:CONTROL."""
    name, _, own = text.partition(":")
    check_choice("--objectives", name, OBJECTIVES)
    if own:
        check_choice(f"the control in --objectives {text}", own, FROZEN)
    if own and control != "none":
        raise ConfigError(
            f"--control must be none where --objectives name controls; got {control!r} and "
            f"{text!r}. Leave one of them out."
        )
    return name, own or control


def _values(text: str) -> tuple[str, tuple[int | float, ...]]:
    """The field and the values of FIELD=VALUE,VALUE."""
    name, _, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if name not in SPARSITIES or not values:
        raise ConfigError(
            f"--sparsities must be FIELD=VALUE,VALUE with a field of {', '.join(SPARSITIES)}; got "
            f"{text!r}{near(name, SPARSITIES)}."
        )
    kind = int if name == "k" else float
    try:
        return name, tuple(kind(value) for value in values.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--sparsities must give numbers between commas; got {text!r}. Write it like "
            f"{name}={'8,16,32' if name == 'k' else '0.5,1,2'}."
        ) from error
