"""How the loss on one manifold falls with the number of latents, and where it stops falling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from ..measures.allocation import log_slope
from .runs import Dictionary

TAIL = 16
"""beta is fitted over the largest sizes, a factor of TAIL."""
FALLS = 0.03
"""With a smaller beta over the largest sizes a loss does not fall."""
LEVEL = 0.1
"""A loss is level where its excess is within this fraction of the smallest excess."""


@final
@dataclass(frozen=True)
class Curve:
    """L(n) of one objective on one manifold.

    latents_M, loss_M, fvu_M, alive_M: means over the seeds of each size
    beta, error: exponent of the excess L(n) - bound over the largest sizes, and its standard error,
                 over seeds if there are several, else of the fit; None for fewer than two sizes
    level:       the smallest size whose excess is within LEVEL of the smallest; None while the loss
                 falls: beta is above FALLS, and the largest size has the smallest loss
    """

    objective: str
    setting: str
    shape: str
    dimension: int
    seeds: int
    bound: float
    latents_M: Float[np.ndarray, " m"]
    loss_M: Float[np.ndarray, " m"]
    fvu_M: Float[np.ndarray, " m"]
    alive_M: Float[np.ndarray, " m"]
    beta: float | None
    error: float | None
    level: int | None

    @property
    def excess_M(self) -> Float[np.ndarray, " m"]:
        """L(n) - bound."""
        return self.loss_M - self.bound

    @property
    def verdict(self) -> str:
        """What the loss does at the largest sizes, in words."""
        if self.beta is None:
            return "too few sizes"
        if self.level is None:
            return f"falls to {int(self.latents_M[-1]):,}"
        if self.excess_M[-1] > (1 + LEVEL) * self.excess_M.min():
            return f"least at {int(self.latents_M[self.excess_M.argmin()]):,}, then rises"
        return f"levels off at {self.level:,}"

    def record(self) -> dict[str, Any]:
        """One record for result.json and toys.csv."""
        return {
            "objective": self.objective,
            "setting": self.setting,
            "shape": self.shape,
            "dimension": self.dimension,
            "seeds": self.seeds,
            "smallest": int(self.latents_M[0]),
            "largest": int(self.latents_M[-1]),
            "loss_smallest": round(float(self.loss_M[0]), 5),
            "loss_largest": round(float(self.loss_M[-1]), 5),
            "bound": round(self.bound, 5),
            "alive_largest": round(float(self.alive_M[-1]), 1),
            "beta": "" if self.beta is None else round(self.beta, 4),
            "beta_error": "" if self.error is None else round(self.error, 4),
            "level": self.level or "",
            "level_over_2d": round(self.level / (2 * self.dimension), 2) if self.level else "",
            "verdict": self.verdict,
        }


def curves(toys: Sequence[Dictionary]) -> list[Curve]:
    """L(n) of every objective, setting and manifold, runs of several seeds together."""
    alike: dict[tuple[str, str, str, int], list[Dictionary]] = {}
    for one in toys:
        assert one.shape
        key = (one.objective, one.setting, one.shape.name, one.shape.dimension)
        alike.setdefault(key, []).append(one)
    order = {"relu_l1": 0, "jumprelu": 1, "topk": 2}
    keys = sorted(alike, key=lambda key: (order.get(key[0], 3), *key))
    return [_curve(alike[key]) for key in keys]


def _curve(some: Sequence[Dictionary]) -> Curve:
    """L(n) of runs on one manifold, alike but for latents and seed."""
    first = some[0]
    assert first.shape and first.losses
    sizes = sorted({one.latents for one in some})
    by_size = [[one for one in some if one.latents == n] for n in sizes]

    def mean(key: str) -> Float[np.ndarray, " m"]:
        rows = [[_figure(one, key) for one in group] for group in by_size]
        return np.array([float(np.mean(row)) for row in rows])

    latents_M, bound = np.array(sizes, float), first.losses.bound
    seeds = sorted({one.seed for one in some})
    slopes = []
    for seed in seeds:
        own = [one for one in some if one.seed == seed]
        n_M = np.array([float(one.latents) for one in own])
        slopes.append(_beta(n_M, np.array([_figure(one, "loss") for one in own]) - bound))
    beta, error = _beta(latents_M, mean("loss") - bound)
    each = [slope for slope, _ in slopes if slope is not None]
    if len(each) > 1:
        beta = float(np.mean(each))
        error = float(np.std(each, ddof=1) / np.sqrt(len(each)))
    loss_M = mean("loss")
    level = None
    if beta is not None and (beta < FALLS or loss_M[-1] > loss_M.min()):
        near_M = loss_M - bound <= (1 + LEVEL) * (loss_M.min() - bound)
        level = int(latents_M[near_M.argmax()])
    return Curve(
        first.objective,
        first.setting,
        first.shape.name,
        first.shape.dimension,
        len(seeds),
        bound,
        latents_M,
        loss_M,
        mean("fvu"),
        mean("alive"),
        beta,
        error,
        level,
    )


def _figure(one: Dictionary, key: str) -> float:
    assert one.losses
    return float({"loss": one.losses.total, "fvu": one.fvu, "alive": one.alive}[key])


def _beta(
    latents_M: Float[np.ndarray, " m"], excess_M: Float[np.ndarray, " m"]
) -> tuple[float | None, float | None]:
    """beta and its error over the largest sizes; None for fewer than two."""
    kept = (latents_M >= latents_M.max() / TAIL) & (excess_M > 0)
    if len(np.unique(latents_M[kept])) < 2:
        return None, None
    fit = log_slope(latents_M[kept], excess_M[kept])
    return -fit.slope, fit.error
