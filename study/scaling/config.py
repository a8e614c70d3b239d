"""What the study of scaling can be asked. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated

from tendril.data.errors import ConfigError

from ..core.config import VisionConfig, at_least
from ..measures.curve_search import CurveSearch, Flat

MOST = 1e9


@dataclass(frozen=True)
class ScalingConfig(VisionConfig):
    """How dictionaries scale when features are manifolds: the theory, toys and your own runs.

    --model shares out latents among features by the allocation model: how many features D(N) have
    a latent, in which regime. --run takes runs of any kind: of a store of one synthetic manifold,
    the loss against the number of latents; of many synthetic manifolds, the features found beside
    the model's; of a network, firing frequencies and decoder rows beside controls. --curves counts
    the curve latents of runs on one site of a vision network, a manifold that is known. The model
    takes ten seconds on one CPU core, a run of 16,384 latents a few, drawing curves a minute.
    """

    model: bool = False
    """Include the allocation model."""
    run: tuple[str, ...] = ()
    """Runs: paths, names in runs/, beginnings of names, or latest. The name of a sweep stands for
    all of its runs."""
    alpha: float = 0.5
    """Model: feature i occurs with probability ~ i^-(1 + alpha)."""
    beta: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
    """Model: losses of a feature with n latents ~ n^-beta, a line each."""
    shifted: bool = False
    """Model: L(n) = (n + 1)^-beta with L(0) = 1; by default n^-beta with L(0) = 2."""
    smallest: float = 1e4
    """Model: smallest number of latents N."""
    largest: float = MOST
    """Model: largest number of latents N."""
    features: float = 0.0
    """Model: number of features; 0: infinitely many."""
    first_rank: int = 10
    """Runs: first rank of the slope of firing frequency against rank."""
    last_rank: int = 0
    """Runs: last rank; 0: the last latent that fires."""
    curves: bool = False
    """Count the curve latents of the runs, which are of one site of a vision network."""
    rows: int = 20_000
    """Curves: rows of the store on which a latent must fire to count, and held-out rows on which
    the loss is measured, at most."""
    search: Annotated[CurveSearch, Flat] = field(default_factory=CurveSearch)

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not self.model and not self.run:
            raise ConfigError(
                "`tendril study scaling` needs --model, --run or both; got neither. --model shows "
                "the theory, --run RUN RUN what dictionaries do."
            )
        if self.curves and not self.run:
            raise ConfigError(
                "--curves needs the runs whose curve latents it counts; got none. Give them with "
                "--run RUN RUN."
            )
        self.search.check()
        at_least(self, first_rank=1, last_rank=0, features=0, smallest=10, rows=100)
        if not 0 < self.alpha <= 10:
            raise ConfigError(f"--alpha must be above 0 and at most 10; got {self.alpha:g}.")
        if not self.beta or not all(0 < beta <= 10 for beta in self.beta):
            raise ConfigError(
                f"--beta must be one or more numbers above 0 and at most 10; got "
                f"{' '.join(f'{beta:g}' for beta in self.beta) or 'none'}."
            )
        if not self.smallest * 10 <= self.largest <= MOST:
            raise ConfigError(
                f"--largest must be from ten times --smallest, {10 * self.smallest:g}, to "
                f"{MOST:g}; got {self.largest:g}."
            )
        if self.features > 1e12:
            raise ConfigError(f"--features must be at most 1e12; got {self.features:g}.")
        if self.last_rank and self.last_rank < self.first_rank + 9:
            raise ConfigError(
                f"--last-rank must be at least {self.first_rank + 9}, nine above --first-rank; got "
                f"{self.last_rank}."
            )
