"""What the study of symmetry can be asked. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated

from tendril.data.errors import ConfigError

from ..core.config import VisionConfig, at_least, fractions
from ..measures.curve_search import Flat
from ..measures.symmetry_thresholds import SymmetryThresholds


@dataclass(frozen=True)
class SymmetryConfig(VisionConfig):
    """Stabilisers of the latents of a dictionary over a group, and families that are copies.

    Analyses each latent's transform blocks: its stabiliser, its orientation and its family, against
    raw anchors, blocks in a random order and blocks of equal spectrum, and against runs trained as
    `--controls` or by other methods. The run is a group crosscoder, or any dictionary of single
    vectors, whose blocks are those of its responses over a store of orbits (--store). Shows
    the subject drawn curves, lines, edges, corners and line ends, and makes a page. A thousand
    latents of D16 take about a minute on one CPU core, and the dataset examples another.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest."""
    controls: tuple[str, ...] = ()
    """Runs shown for comparison: controls (random weights, shuffled elements ...), other methods,
    other seeds."""
    thresholds: Annotated[SymmetryThresholds, Flat] = field(default_factory=SymmetryThresholds)
    anchors: int = 1024
    """Raw anchors, which are orbits of rows of the store, in the null distribution."""
    orbits: int = 512
    """Test orbits on which the families of all runs are compared, at most; as many validation
    orbits."""
    test: float = 0.5
    """Fraction of the images held out by all runs that make the test part. FVU on the others, the
    validation part, is for choosing recipes."""
    margin: float = 0.1
    """A latent is a curve if its response to a curve exceeds that to every line, edge, corner and
    line end by this fraction."""
    radii: tuple[float, ...] = ()
    """Radii of the drawn curves, in pixels; by default six that suit the patch."""
    line_width: float = 2.0
    """Width of the drawn lines, in pixels."""
    families: int = 40
    """Families shown on the page, the largest first."""
    examples: int = 6
    """Dataset examples of each family shown; 0 for none."""
    visualise: int = 6
    """Families, the largest first, with four images from feature visualisation; 0 for none. About a
    minute on two cores."""
    umap: bool = True
    """Draw a UMAP of 16 latents or more; some ten seconds."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        self.thresholds.check()
        fractions(self, ("test",))
        at_least(self, anchors=2, orbits=3, families=1, examples=0, visualise=0, margin=0)
        if not self.run:
            raise ConfigError('--run must name a run; got "". `tendril data ls` lists runs.')
        if not self.line_width > 0 or any(not radius > 0 for radius in self.radii):
            raise ConfigError(
                "--line-width and --radii must be above 0 pixels; got "
                f"{self.line_width:g} and {list(self.radii)}."
            )
