"""The thresholds of a symmetry analysis. Imports no torch."""

from dataclasses import dataclass

from ..core.config import fractions


@dataclass(frozen=True)
class SymmetryThresholds:
    """What counts as a symmetry of a latent, and which latents are copies of each other."""

    quantile: float = 0.95
    """A symmetry counts above this quantile of two null distributions: orbits of raw anchors, and
    blocks in a random order."""
    least: float = 0.75
    """Least fraction of the power for a symmetry to count."""
    most: float = 0.9
    """Fraction of the power that always counts. It bounds the nulls' quantile, which symmetric
    inputs, such as drawn ones, would raise beyond what a dictionary can learn from samples."""
    flat: float = 0.1
    """An invariant latent is one of whose power at most this fraction varies over the group."""
    alike: float = 0.0
    """Least mean cosine, in the best pose, within a family. 0 takes the 0.99 quantile over pairs of
    raw anchors of different inputs, and at least 0.5."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        fractions(self, ("quantile", "least", "most", "flat", "alike"))
