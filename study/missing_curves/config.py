"""What the study of missing curve detectors can be asked. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated

from ..core.config import VisionConfig, at_least, several_runs
from ..measures.curve_search import CurveSearch, Flat


@dataclass(frozen=True)
class MissingConfig(VisionConfig):
    """Do the curve latents of several runs fill the gaps between the curve units?

    Makes a page: curve latents of every run and curve units on one circle, the widest gaps over
    seeds compared with chance, units with two tuning peaks decomposed into latents, and whether
    decoder rows lie on a circle. Runs of `tendril train random` serve as controls, and so do runs
    on a subject with random weights. A site takes about a minute on two CPU cores; the page has
    about a megabyte.
    """

    run: tuple[str, ...] = ("latest",)
    """Runs: paths, names in runs/, beginnings of names, or latest. Runs on the same site of the
    same subject are shown together. Baselines (random, pca, ica, neurons) count as controls, and so
    do runs trained with a --control."""
    units: tuple[int, ...] = ()
    """Units to decompose; by default those whose tuning curves have two peaks, strongest first."""
    most_units: int = 6
    """Units to decompose at most, for each site."""
    components: int = 3
    """Latents that a unit is decomposed into."""
    rows: int = 20_000
    """Rows of the store on which components are chosen, at most; as many held-out rows are read to
    score them."""
    examples: int = 4
    """Dataset examples of each decomposed unit and of each component; 0 for none."""
    umap: bool = True
    """Show UMAP of the decoder rows next to their principal components."""
    curves: Annotated[CurveSearch, Flat] = field(default_factory=CurveSearch)

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        self.curves.check()
        several_runs(self.run)
        at_least(self, components=1, rows=100, most_units=0, examples=0)
