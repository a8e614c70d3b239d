"""The thresholds of a symmetry analysis. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from ..core.config import fractions


@dataclass(frozen=True)
class SymmetryThresholds:
    """What counts as a symmetry of a latent, and which latents are copies of each other."""

    quantile: float = 0.95
    """A symmetry counts above this quantile of the null distributions: orbits of raw anchors,
    blocks in a random order and, for reflections, blocks of equal angular spectrum."""
    raw_null: Literal["auto", "yes", "no"] = "auto"
    """Whether raw anchors are a null: auto for all but generated images, which are symmetric by
    design, so that their anchors say nothing about chance."""
    least: float = 0.75
    """Least fraction of the power for a symmetry to count, where chance stays below it. It is a
    matter of size; the nulls alone say what chance reaches."""
    flat: float = 0.1
    """An invariant latent is one of whose power at most this fraction varies over the group."""
    alike: float = 0.0
    """Least mean cosine, in the best pose, within a family. 0 takes the 0.99 quantile over pairs of
    raw anchors of different inputs, and at least 0.5."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        fractions(self, ("quantile", "least", "flat", "alike"))
