"""A planted curve, and what was found nearest to it."""

from collections.abc import Mapping
from dataclasses import dataclass

RECOVERED = 6.0
"""Degrees within which a planted orientation counts as recovered."""


@dataclass(frozen=True)
class Truth:
    """A planted curve detector, and the detectors found nearest to it."""

    unit: int | None
    """The unit that was planted; None where the feature is a direction of several units."""
    orientation: float
    found: Mapping[str, tuple[int, float] | None]
    """By kind of family: the nearest curve detector and its distance in degrees."""
    aligned: tuple[int, float] | None = None
    """The latent whose decoder row has the largest cosine with the planted direction, and it."""
    name: str = ""
    """What a feature is called that is no unit."""
    radius: float = 0.0
    """In pixels; 0 where all planted curves have one radius."""
    axis: tuple[int, float] | None = None
    """The unit to whose axis the planted direction is nearest, and the cosine."""
    chance: float = 0.0
    """The mean greatest cosine of as many random directions as there are latents."""
    by_chance: float = 0.0
    """How often the greatest cosine of that many random directions is at least 0.8."""

    @property
    def label(self) -> str:
        """The unit by its number, or the feature by its name."""
        return self.name if self.unit is None else f"unit {self.unit}"

    def error(self, kind: str) -> float:
        """Degrees to the nearest of that kind; 180 where there is none."""
        nearest = self.found.get(kind)
        return 180.0 if nearest is None else nearest[1]

    def recovered(self, kind: str) -> bool:
        """Whether the nearest of that kind lies within 6 degrees."""
        return self.error(kind) <= RECOVERED
