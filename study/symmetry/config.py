"""What can be asked of a study of symmetry. Imports no torch: `--help` answers at once."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

from ..curves.config import CurvesConfig


@dataclass(frozen=True)
class SymmetryConfig:
    """A study of what fixes the latents of a group crosscoder, and of which are copies."""

    run: str = "latest"
    """The run: a path, a name in runs/, the beginning of one, or latest."""
    controls: tuple[str, ...] = ()
    """Runs trained as controls (random weights, shuffled elements ...), shown beside it."""
    subject: str = ""
    """inceptionv1, planted, handmade, or FILE.py:FUNCTION; the run's own by default."""
    weights: str = ""
    """A file of weights, or `lucent` (inceptionv1); the run's own by default."""
    normalisation: str = ""
    """Response normalisation of inceptionv1: auto, lucent or sibling; the run's by default."""
    inputs: str = ""
    """Where the harvested images are, for the dataset examples; where they were by default."""
    store: str = ""
    """The store of orbits; the run's own by default."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; $TENDRIL_HOME, or here, by default."""
    name: str = ""
    """First part of the report's name; subject and site by default."""
    quantile: float = 0.95
    """A symmetry counts where its share is above this quantile of both nulls: raw anchors'
    orbits, and blocks in a random order."""
    least: float = 0.75
    """And no smaller a share than this."""
    most: float = 0.9
    """A share of this counts, whatever the nulls reach: inputs that are symmetric themselves, as
    drawn ones, would else ask for more than what is learned from samples can have."""
    flat: float = 0.1
    """Invariant is a latent of whose power no more than this varies with the transformation."""
    alike: float = 0.0
    """Least mean cosine, in the best pose, within a family; 0 takes it from the null: what 99 of
    100 pairs of raw anchors of different inputs do not reach, and no less than .5."""
    anchors: int = 1024
    """Raw anchors of the null."""
    margin: float = 0.1
    """By how much the answer to a curve must exceed that to every line, edge, corner and line
    end for a latent to be called a curve."""
    radii: tuple[float, ...] = ()
    """Radii of the drawn curves, in pixels; by default six that suit the patch."""
    line_width: float = 2.0
    """Width of the drawn lines, in pixels."""
    families: int = 40
    """Families that the page shows, the largest."""
    examples: int = 6
    """Dataset examples of each family shown; 0 for none."""
    visualise: int = 6
    """Families, the largest, of whose heads images are made (feature visualisation, four each);
    0 for none. A minute or so on two cores."""
    umap: bool = True
    """Draw UMAP's picture of the latents, too, where there are 16 or more: some ten seconds."""
    overwrite: bool = False
    """Make the report anew where it is there already."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        for name in ("quantile", "least", "most", "flat", "alike"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"--{name} is a share from 0 to 1, and not {value:g}.")
        for name, least in (("anchors", 2), ("families", 1), ("examples", 0), ("visualise", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} is {least} or more, and not {getattr(self, name)}.")
        if self.margin < 0 or not self.line_width > 0 or any(r <= 0 for r in self.radii):
            raise ConfigError(
                f"--margin is 0 or more, --line-width and --radii are above 0 pixels, and not "
                f"{self.margin:g}, {self.line_width:g} and {list(self.radii)}."
            )

    def sources(self) -> CurvesConfig:
        """The part of it that says where run, store, subject and inputs are."""
        return CurvesConfig(
            run=self.run,
            subject=self.subject,
            weights=self.weights,
            normalisation=self.normalisation,
            inputs=self.inputs,
            store=self.store,
            home=self.home,
            examples=self.examples,
        )
