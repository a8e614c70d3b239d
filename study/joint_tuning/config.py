"""What the study of joint tuning can be asked. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated

from tendril.data.errors import ConfigError

from ..core.config import VisionConfig, at_least
from ..measures.curve_search import CurveSearch, Flat

LEAST_TURNS = 12


@dataclass(frozen=True)
class JointConfig(VisionConfig):
    """Joint tuning: photographs that excite each curve unit, turned while all are recorded.

    Compares orientations and tuning widths measured on photographs with those measured on drawn
    curves, and makes a page. 20 units with 10 patches each and 360 turns are 72,000 patches, which
    take some minutes on two CPU cores; --step 5 takes a fifth of that.
    """

    run: str = "latest"
    """Run whose site, store and images are used: a path, a name in runs/, the beginning of just
    one, or latest."""
    latents: tuple[int, ...] = ()
    """Latents of the run to record besides the curve units."""
    images: int = 10
    """Patches of each detector: those that excite it most, one a photograph."""
    step: float = 1.0
    """Degrees from one turn of a patch to the next."""
    curves: Annotated[CurveSearch, Flat] = field(default_factory=CurveSearch)

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        self.curves.check()
        at_least(self, images=1)
        if not self.run:
            raise ConfigError("--run must name a run; got none. `tendril data ls` lists runs.")
        turns = 360 / self.step if self.step > 0 else 0.0
        if turns < LEAST_TURNS or abs(turns - round(turns)) > 1e-6:
            raise ConfigError(
                f"--step must divide 360 degrees into at least {LEAST_TURNS} equal turns; got "
                f"{self.step:g}. Use 1 or 5, for example."
            )
