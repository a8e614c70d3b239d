"""The allocation model over many numbers of latents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from ..measures.allocation import Allocation, Kind, PowerLaw, Slope, allocate, log_slope
from .config import ScalingConfig

A_DECADE = 3
"""Numbers of latents a power of ten."""
DECADES = 2
"""Exponents are fitted over the last decades."""
NEAR = 0.05
"""alpha and beta this close are no regime."""
REGIMES = {
    "features": "each further latent finds a feature of its own",
    "manifolds": "common manifolds absorb latents",
    "between": "between the regimes",
}


@final
@dataclass(frozen=True)
class Line:
    """What the model says for one beta.

    found:    an allocation for each number of latents
    features, loss: fitted exponents of D(N) and L(N) over the last DECADES decades
    """

    beta: float
    found: Sequence[Allocation]
    features: Slope
    loss: Slope
    expected_features: float
    expected_loss: float
    regime: str

    def record(self) -> dict[str, Any]:
        """One record for result.json."""
        last = self.found[-1]
        return {
            "beta": self.beta,
            "regime": self.regime,
            "latents": last.latents,
            "features": last.features,
            "efficiency": round(last.efficiency, 6),
            "loss": last.loss,
            "features_exponent": round(self.features.slope, 4),
            "features_exponent_error": _rounded(self.features.error),
            "features_exponent_expected": round(self.expected_features, 4),
            "loss_exponent": round(self.loss.slope, 4),
            "loss_exponent_error": _rounded(self.loss.error),
            "loss_exponent_expected": round(self.expected_loss, 4),
        }


def _rounded(error: float | None) -> float | None:
    return None if error is None else round(error, 5)


def regime(alpha: float, beta: float) -> str:
    """Which of REGIMES the exponents are in."""
    if abs(alpha - beta) < NEAR:
        return "between"
    return "features" if beta > alpha else "manifolds"


def sizes(smallest: float, largest: float) -> Float[np.ndarray, " n"]:
    """Numbers of latents, A_DECADE a decade."""
    steps = round(A_DECADE * np.log10(largest / smallest))
    return np.round(np.logspace(np.log10(smallest), np.log10(largest), steps + 1))


def lines(config: ScalingConfig) -> list[Line]:
    """The model for every beta."""
    sizes_N = sizes(config.smallest, config.largest)
    features = int(config.features) or None
    made = []
    for beta in config.beta:
        kind = Kind(PowerLaw(beta, config.shifted))
        found = [allocate(int(n), config.alpha, [kind], features) for n in sizes_N]
        last = sizes_N >= sizes_N[-1] / 10**DECADES * 0.999
        features_N = np.array([one.features for one in found], np.float64)
        loss_N = np.array([one.loss for one in found])
        made.append(
            Line(
                beta,
                found,
                log_slope(sizes_N[last], features_N[last]),
                log_slope(sizes_N[last], loss_N[last]),
                min(1.0, (1 + beta) / (1 + config.alpha)),
                -min(config.alpha, beta),
                regime(config.alpha, beta),
            )
        )
    return made
