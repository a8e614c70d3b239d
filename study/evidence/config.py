"""What the study of evidence can be asked. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from tendril.data.errors import ConfigError

from ..core.config import VisionConfig, at_least, fractions, several_runs
from ..measures.curve_search import CurveSearch, Flat

COARSEST = 30.0


@dataclass(frozen=True)
class EvidenceConfig(VisionConfig):
    """Which curve latents are missing curve detectors, by five criteria.

    A missing curve detector (i) is covered by no unit, (ii) answers to curves more than to rival
    shapes, (iii) keeps its orientation on turned photographs, (iv) comes back in runs of other
    seeds, and (v) matters downstream: removing it costs more than removing as much along random
    directions. Makes a page with a row for each candidate and a column for each criterion, beside
    latents that copy units. About half a minute a latent on two CPU cores.
    """

    run: tuple[str, ...] = ("latest",)
    """Runs on one site of one subject, with different seeds: paths, names in runs/, beginnings of
    names, or latest."""
    candidates: int = 6
    """Candidates of each run, at most: curve latents that copy no unit, those farthest from every
    curve unit first."""
    copies: int = 2
    """Latents of each run that copy a curve unit, for comparison."""
    apart: float = 10.0
    """(i) Least distance in degrees from the orientation of every curve unit."""
    off: float = 20.0
    """(iii) Greatest difference in degrees between the orientations on photographs and on drawn
    curves."""
    alike: float = 0.7
    """(iv) Least cosine between decoder rows of the same latent in two runs."""
    recurs: float = 0.5
    """(iv) Least fraction of the runs of other seeds in which it comes back."""
    level: float = 0.05
    """(v) Greatest P value of the effect downstream, among random directions."""
    downstream: str = ""
    """(v) Site whose curve units are watched; by default mixed4a for inceptionv1."""
    directions: int = 19
    """(v) Random directions, which are decoder rows of other latents."""
    turned: int = 6
    """(iii) Photographs that are turned, for each latent."""
    step: float = 15.0
    """(iii) Degrees from one turn to the next."""
    photographs: int = 16
    """(v) Photographs on which answers are compared, those that excite the latent most."""
    together: int = 64
    """Photographs on which all new curve latents are removed at once, then all that copy a unit,
    beside as many other latents; 0: not at all."""
    labels: str = ""
    """File of the network's classes, whose line i begins with the id of class i; by default the
    network's own first answers count as right."""
    curves: Annotated[CurveSearch, Flat] = field(default_factory=CurveSearch)

    NO_SETTING: ClassVar[frozenset[str]] = VisionConfig.NO_SETTING | {"labels"}

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        self.curves.check()
        several_runs(self.run)
        fractions(self, ("alike", "recurs", "level"))
        at_least(self, candidates=1, copies=0, together=0, apart=0, off=0, directions=1)
        at_least(self, turned=1, step=1, photographs=1)
        if self.step > COARSEST:
            raise ConfigError(
                f"--step must be at most {COARSEST:g} degrees, so that a peak can be found; got "
                f"{self.step:g}."
            )
        least = 1 / (1 + self.directions)
        if least > self.level:
            raise ConfigError(
                f"--directions must be larger for --level {self.level:g}; got {self.directions}, "
                f"with which the least P value is {least:.2g}. 19 suffice for 0.05."
            )
