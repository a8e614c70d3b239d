"""How curve detectors are searched for: which curves are drawn, and what counts. No torch."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from tendril.data.errors import ConfigError

from .curve_scores import CurveThresholds

Flat = tyro.conf.arg(name="")


@dataclass(frozen=True)
class CurveSearch:
    """Orientations, radii and line width of the drawn curves, and the thresholds."""

    orientation_step: float = 5.0
    """Degrees from one orientation to the next."""
    radii: tuple[float, ...] = ()
    """Radii of the drawn curves, in pixels; by default six that suit the receptive field."""
    line_width: float = 2.0
    """Width of the drawn line, in pixels."""
    thresholds: Annotated[CurveThresholds, Flat] = field(default_factory=CurveThresholds)

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        turns = 360 / self.orientation_step if self.orientation_step > 0 else 0.0
        if turns < 8 or abs(turns - round(turns)) > 1e-6:
            raise ConfigError(
                "--orientation-step must divide 360 degrees into 8 steps or more; got "
                f"{self.orientation_step:g}. 5 is usual."
            )
        if any(radius < 0 for radius in self.radii) or not self.line_width > 0:
            raise ConfigError(
                "--radii must be 0 or more and --line-width above 0 pixels; got "
                f"{list(self.radii)} and {self.line_width:g}."
            )
        for name in ("resultant", "echo", "strength"):
            value = getattr(self.thresholds, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"--{name} must be a fraction from 0 to 1; got {value:g}.")
        if not self.thresholds.rival > 0:
            raise ConfigError(
                f"--rival must be above 0; got {self.thresholds.rival:g}. 1 admits no unit that "
                "prefers another shape to curves."
            )

    @property
    def orientations(self) -> tuple[float, ...]:
        """Those that are drawn, in degrees."""
        return tuple(i * self.orientation_step for i in range(round(360 / self.orientation_step)))
