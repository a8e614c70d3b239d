"""What the study of superposition can be asked. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

from ..core.config import StudyConfig, at_least

DENSITIES, SPARSEST = 30, 0.1
LARGEST_FEATURES = 1024
MOST_STEPS, MOST_SEEDS = 10_000_000, 100
"""As in measures/superposition.py, which would load torch."""


@dataclass(frozen=True)
class SuperpositionConfig(StudyConfig):
    """Superposition in toy models, and what adversarial training does to it.

    Trains x' = ReLU(W^T W x + b) at each density of features, once on clean inputs and once half on
    attacked ones, and shows features per dimension, their geometry, interference and vulnerability.
    Needs no store and no run, and runs on the CPU. The settings are those of Gorton and Lewis, 2025
    (arXiv 2508.17456), but for the steps, of which the paper has 150,000: --steps 150000. Training
    that was stopped goes on where it was; finished models are kept in toys/ and used again.
    """

    features: int = 100
    """Number of features n."""
    hidden: int = 20
    """Number of hidden dimensions m."""
    density: tuple[float, ...] = ()
    """Probabilities 1 - S that a feature is active, a model each; by default 30 from 1 to 0.1,
    evenly spaced in their logarithm."""
    attack: float = 0.1
    """L2 norm of an attack, as a fraction of the mean norm of the inputs."""
    steps: int = 8000
    """Training steps."""
    batch: int = 128
    """Inputs of a step."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    seeds: int = 2
    """Number of seeds, 0, 1, ..., each a sweep of its own."""

    def densities(self) -> tuple[float, ...]:
        """The densities, from dense to sparse."""
        last = DENSITIES - 1
        even = tuple(SPARSEST ** (i / last) for i in range(DENSITIES))
        return tuple(sorted(self.density or even, reverse=True))

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        at_least(self, features=2, hidden=1, steps=1, seeds=1)
        if self.features > LARGEST_FEATURES:
            raise ConfigError(
                f"--features must be at most {LARGEST_FEATURES}; got {self.features:,}."
            )
        if self.hidden > self.features:
            raise ConfigError(
                f"--hidden must be at most --features, {self.features}; got {self.hidden}. With "
                "more dimensions than features nothing is in superposition."
            )
        if wrong := [value for value in self.density if not 0 < value <= 1]:
            raise ConfigError(
                f"--density must be numbers above 0 and at most 1; got {wrong[0]:g}. It is the "
                "probability that a feature is active, 1 - S."
            )
        if len(set(self.density)) < len(self.density):
            raise ConfigError("--density must be different numbers; one is given twice.")
        if not 0 < self.attack <= 1:
            raise ConfigError(
                f"--attack must be above 0 and at most 1; got {self.attack:g}. It is a fraction "
                "of the mean norm of the inputs; the paper has 0.1."
            )
        if not 0 < self.lr <= 1:
            raise ConfigError(f"--lr must be above 0 and at most 1; got {self.lr:g}.")
        if self.batch < 2 or self.batch % 2:
            raise ConfigError(
                f"--batch must be an even number from 2, half of it attacked; got {self.batch}."
            )
        if self.steps > MOST_STEPS:
            raise ConfigError(f"--steps must be at most {MOST_STEPS:,}; got {self.steps:,}.")
        if self.seeds > MOST_SEEDS:
            raise ConfigError(f"--seeds must be at most {MOST_SEEDS}; got {self.seeds}.")
