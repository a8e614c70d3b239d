"""What the study of curve detectors can be asked. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated

from ..core.config import VisionConfig, at_least
from ..measures.curve_search import CurveSearch, Flat


@dataclass(frozen=True)
class CurvesConfig(VisionConfig):
    """Curve detectors among the units of a site and the latents of a run trained on it.

    Draws lines and edges of 72 orientations and six radii, and makes a page: tuning curves,
    coverage of the circle, dataset examples. Without flags it takes the latest run; `--run ""
    --subject inceptionv1 --weights FILE --site mixed3b` studies units without a dictionary.
    For InceptionV1's mixed3b about a minute on one CPU core, and a page of a few megabytes.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest; "" for units only."""
    site: str = ""
    """Where activations are read; by default the run's site."""
    curves: Annotated[CurveSearch, Flat] = field(default_factory=CurveSearch)
    examples: int = 6
    """Dataset examples of each curve unit and latent; 0 for none."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        self.curves.check()
        at_least(self, examples=0)
