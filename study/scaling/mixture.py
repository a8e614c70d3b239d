"""Dictionaries of many manifolds beside the allocation model.

The model shares out as many latents as fire among the manifolds of the store, whose p_i are known,
by the loss L(n) that dictionaries of one such manifold reach with n latents. It weights L_i by p_i,
the probability that manifold i is on, so L(n) is conditional on the manifold being on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from ..core.trained import TrainedSparsity
from ..measures.allocation import (
    Allocation,
    Kind,
    LossCurve,
    Measured,
    PowerLaw,
    Slope,
    allocate,
    log_slope,
)
from .config import ScalingConfig
from .model import REGIMES, regime
from .runs import Dictionary, Shape

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
MEASURED = "measured L(n)"
CLOSE = 0.02
"""Relative difference of sparsity settings that count as equal."""
LINE = 80
"""Numbers of latents on a line of the model, at most."""
BETWEEN = 2000
"""Places at which a measured curve is interpolated, at most."""
PARTS = 1.1
"""Measurement and model part where one is this many times the other."""


@final
@dataclass(frozen=True)
class Point:
    """A dictionary beside the model with as many latents as fire."""

    one: Dictionary
    model: Allocation | None

    @property
    def measured(self) -> int:
        """D, the manifolds that have a latent."""
        assert self.one.counts
        return self.one.counts.found


@final
@dataclass(frozen=True)
class Mixture:
    """Dictionaries of one store and one objective, by size.

    curve: the measured L(n); None without runs on one such manifold
    sizes: how many latents each dictionary on one manifold had, all of which fire
    line:  the model at LINE numbers of latents, evenly on a logarithmic axis
    guesses: without a curve, the model for each beta: (name, line)
    """

    store: str
    objective: str
    setting: str
    shape: Shape
    points: Sequence[Point]
    curve: Measured | None
    sizes: Sequence[int]
    line: Sequence[Allocation]
    guesses: Sequence[tuple[str, Sequence[Allocation]]]

    @property
    def name(self) -> str:
        """In legends."""
        what = f"{self.objective} {self.setting}".strip()
        return f"{what}; {self.manifolds}, alpha {self.alpha:.3g}"

    @property
    def manifolds(self) -> str:
        """E.g. `64 circles` or `21 spheres, d = 6`."""
        one = self.shape
        if one.name == "sphere" and one.dimension == 2:
            return f"{one.features} circles"
        name = {"torus": "tori"}.get(one.name, f"{one.name}s")
        return f"{one.features} {name}, d = {one.dimension}"

    @property
    def alpha(self) -> float:
        """p_i ~ i^-(1 + alpha)."""
        return self.shape.exponent - 1

    def exponents(self) -> tuple[Slope, Slope] | None:
        """Exponents of D(N), measured and of the model at the same N; None for fewer than three
        numbers of latents or without a model."""
        some = [point for point in self.points if point.model]
        x = np.array([float(point.one.alive) for point in some])
        if len(np.unique([point.one.latents for point in some])) < 3:
            return None
        found = np.array([float(point.measured) for point in some])
        model = np.array([float(point.model.features) for point in some if point.model])
        return log_slope(x, found), log_slope(x, model)

    def beta(self) -> Slope | None:
        """Exponent of the measured L(n), beyond the 2 d latents of a plus-minus basis; None for
        fewer than three sizes."""
        if self.curve is None:
            return None
        n = np.array([float(size) for size in self.sizes if size >= 2 * self.shape.dimension])
        if len(n) < 3:
            return None
        slope = log_slope(n, self.curve.loss(n))
        return Slope(-slope.slope, slope.error, slope.residual)

    def largest(self) -> list[Point]:
        """The points of the largest dictionaries."""
        most = max(point.one.latents for point in self.points)
        return [point for point in self.points if point.one.latents == most]


def mixtures(config: ScalingConfig, found: Sequence[Dictionary]) -> list[Mixture]:
    """Runs on many manifolds, one mixture for each store, objective and sparsity."""
    groups: dict[tuple[str, str, str], list[Dictionary]] = {}
    for one in found:
        if one.shape and one.counts and one.shape.features > 1:
            groups.setdefault((one.store, one.objective, one.setting), []).append(one)
    return [_mixture(config, *key, some, found) for key, some in groups.items()]


def _mixture(
    config: ScalingConfig,
    store: str,
    objective: str,
    setting: str,
    some: Sequence[Dictionary],
    found: Sequence[Dictionary],
) -> Mixture:
    some = sorted(some, key=lambda one: (one.latents, one.seed))
    shape = some[0].shape
    assert shape
    law = shape.exponent > 1
    losses = measured_losses(found, some[0]) if law else {}
    curve = measured_curve(losses)
    guesses: list[tuple[str, LossCurve]] = []
    if law and curve is None:
        guesses = [(f"beta {beta:g}", PowerLaw(beta, config.shifted)) for beta in config.beta]
    ends = [one.alive for one in some if one.alive]
    numbers = _numbers(min(ends), max(ends)) if ends else []

    def line(loss: LossCurve) -> list[Allocation]:
        return [_allocated(n, shape, loss) for n in numbers]

    return Mixture(
        store,
        objective,
        setting,
        shape,
        [Point(one, _allocated(one.alive, shape, curve) if curve and one.alive else None)
         for one in some],
        curve,
        sorted(losses),
        line(curve) if curve else [],
        [(name, line(loss)) for name, loss in guesses],
    )  # fmt: skip


def _allocated(latents: int, shape: Shape, loss: LossCurve) -> Allocation:
    return allocate(latents, shape.exponent - 1, [Kind(loss)], shape.features)


def _numbers(low: int, high: int, count: int = LINE) -> list[int]:
    """Whole numbers from `low` to `high`, evenly on a logarithmic axis."""
    spaced = np.round(np.geomspace(low, high, count)).astype(int)
    return [int(n) for n in np.unique(spaced)]


def measured_losses(
    found: Sequence[Dictionary], like: Dictionary
) -> dict[int, Float[np.ndarray, " m"]]:
    """Losses of dictionaries on one manifold like those of `like`, by the number of latents that
    fire: of the same shape and dimension, the same objective and the same sparsity for rows of the
    same scale. FVU where the loss is not known."""
    losses: dict[int, list[float]] = {}
    for one in found:
        if one.shape is None or like.shape is None or one.shape.features > 1:
            continue
        alike = (one.shape.name, one.shape.dimension) == (like.shape.name, like.shape.dimension)
        if (
            not alike
            or one.objective != like.objective
            or not same_sparsity(one.sparsity, like.sparsity)
        ):
            continue
        if np.isfinite(loss := one.loss) and one.alive:
            losses.setdefault(one.alive, []).append(loss)
    return {n: np.array(values) for n, values in losses.items()}


def same_sparsity(one: TrainedSparsity | None, other: TrainedSparsity | None) -> bool:
    """True if two dictionaries were trained with the same sparsity for raw rows."""
    if one is None or other is None:
        return False
    a, b = one.raw, other.raw
    return one.field == other.field and abs(a - b) <= CLOSE * max(abs(a), abs(b))


def measured_curve(losses: dict[int, Float[np.ndarray, " m"]]) -> Measured | None:
    """L(n) as the mean loss at each n, a power law between these; None without losses. L(0) = 1,
    the manifold's own energy. After the last n it is constant."""
    if not losses:
        return None
    numbers = sorted(losses)
    mean = [float(losses[n].mean()) for n in numbers]
    n = np.unique([*_numbers(numbers[0], numbers[-1], BETWEEN), *numbers])
    loss = np.exp(np.interp(np.log(n), np.log(numbers), np.log(mean)))
    return Measured([0, *map(int, n)], [1.0, *map(float, loss)])


def where_they_part(one: Mixture) -> str:
    """A sentence: where measurement and model part, or that they do not."""
    shown = [point for point in one.points if point.model]
    if not shown:
        return ""
    by_size: dict[int, list[Point]] = {}
    for point in shown:
        by_size.setdefault(point.one.latents, []).append(point)
    ratio = {
        size: float(np.mean([p.measured / p.model.features for p in points if p.model]))
        for size, points in sorted(by_size.items())
    }
    apart = [size for size, value in ratio.items() if not 1 / PARTS <= value <= PARTS]
    last = max(by_size)
    first = [p.one.counts.latents_F[0] for p in by_size[last] if p.one.counts]
    most = [_most(p.model) for p in by_size[last] if p.model]
    cost = float(np.mean([p.one.loss / p.model.loss for p in by_size[last] if p.model]))
    slopes = one.exponents()
    told = (
        f"the most frequent manifold has {np.mean(first):.0f} of {last} latents, the model gives "
        f"it {np.mean(most):.0f}, and the loss is {cost:.2f} times the model's"
    )
    if slopes:
        measured, model = (f"N^({slope_text(slope)})" for slope in slopes)
        told += f"; D grows as {measured}, the model's as {model}"
    if not apart:
        return (
            f"Measured and predicted numbers of manifolds agree within {PARTS - 1:.0%} at every N "
            f"from {min(ratio)} to {last}; {told}."
        )
    where = "every N" if len(apart) == len(ratio) else f"N = {', '.join(map(str, apart))}"
    return (
        f"Measurement and model part by more than {PARTS - 1:.0%} at {where}: at N = {last} "
        f"dictionaries find {ratio[last]:.2f} times as many manifolds as the model; {told}."
    )


def _most(model: Allocation) -> int:
    return max(block.latents for block in model.blocks) if model.blocks else 0


def regime_of(one: Mixture) -> str:
    """The regime in words; empty where the measured loss follows no power law."""
    beta = one.beta()
    if beta is None:
        return ""
    words = REGIMES[regime(one.alpha, beta.slope)]
    return f"Beta is {slope_text(beta)} and alpha {one.alpha:.3g}; by the model {words}. "


def slope_text(slope: Slope | None) -> str:
    """A slope and its standard error; empty for none."""
    if slope is None:
        return ""
    error = "" if slope.error is None else f" {PLUS_MINUS} {slope.error:.2f}"
    return f"{slope.slope:.2f}{error}"
