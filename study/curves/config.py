"""What can be asked of a study. Imports no torch: `--help` answers at once."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from tendril.data.errors import ConfigError

from ..measures.curve_scores import CurveThresholds

Flat = tyro.conf.arg(name="")
REFERENCE_FIELD = 91
"""The receptive field, in pixels, that the default radii suit."""


@dataclass(frozen=True)
class CurvesConfig:
    """A study of curve detectors: the units of a site, and the latents of a run trained there."""

    run: str = "latest"
    """The run: a path, a name in runs/, the beginning of one, or latest; "" studies units only."""
    subject: str = ""
    """inceptionv1, handmade, planted, or FILE.py:FUNCTION; the run's own by default."""
    weights: str = ""
    """A file of weights, or `lucent` (inceptionv1); the run's own by default."""
    normalisation: str = ""
    """Response normalisation of inceptionv1: auto, lucent or sibling; the run's by default."""
    site: str = ""
    """Where activations are read; the run's site by default."""
    inputs: str = ""
    """Where the harvested images are, for the dataset examples; where they were by default."""
    store: str = ""
    """The store that dataset examples come from; the run's own by default."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; $TENDRIL_HOME, or here, by default."""
    name: str = ""
    """First part of the report's name; subject and site by default."""
    orientation_step: float = 5.0
    """Degrees from one orientation to the next."""
    radii: tuple[float, ...] = ()
    """Radii in pixels; by default six from 8 to 128, which suit a receptive field of 91 pixels,
    doubled or halved for others."""
    line_width: float = 2.0
    """Width of the drawn line, in pixels."""
    thresholds: Annotated[CurveThresholds, Flat] = field(default_factory=CurveThresholds)
    examples: int = 6
    """Dataset examples of each curve unit and latent; 0 for none."""
    overwrite: bool = False
    """Make the report anew where it is there already."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        turns = 360 / self.orientation_step if self.orientation_step > 0 else 0.0
        if turns < 8 or abs(turns - round(turns)) > 1e-6:
            raise ConfigError(
                f"--orientation-step divides 360 degrees into 8 steps or more, "
                f"and {self.orientation_step:g} does not; 5 is usual."
            )
        if any(radius < 0 for radius in self.radii) or not self.line_width > 0:
            raise ConfigError(
                f"--radii are 0 or more pixels and --line-width is above 0, "
                f"and not {list(self.radii)} and {self.line_width:g}."
            )
        for name in ("resultant", "echo", "strength"):
            value = getattr(self.thresholds, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"--{name} is a share from 0 to 1, and not {value:g}.")
        if self.examples < 0:
            raise ConfigError(f"--examples is 0 or more, and not {self.examples}.")

    @property
    def orientations(self) -> tuple[float, ...]:
        """Those that are drawn, in degrees."""
        return tuple(i * self.orientation_step for i in range(round(360 / self.orientation_step)))


@dataclass(frozen=True)
class SpliceConfig:
    """What the subject still knows when a site is replaced by its reconstruction."""

    run: tuple[str, ...] = ("latest",)
    """One run or more of the same site: paths, names in runs/, beginnings of names, or latest."""
    subject: str = ""
    """inceptionv1, FILE.py:FUNCTION or a language model; the run's own by default."""
    weights: str = ""
    """A file of weights, or `lucent` (inceptionv1); the run's own by default."""
    normalisation: str = ""
    """Response normalisation of inceptionv1: auto, lucent or sibling; the run's by default."""
    inputs: str = ""
    """The images: a folder or hf:NAME_OR_PATH[@SPLIT]; where the harvested ones were by default.
    Of a language model the text, or self[:SEED]; by default the store's contexts that were held
    out of training."""
    labels: str = ""
    """A file whose line i begins with the id of class i; an image's class is the id that its
    file's name, or a folder's above it, begins with. Empty: the subject's own first answers."""
    limit: int | None = None
    """So many images (contexts) at random, the same ones each time; all by default."""
    batch_size: int = 16
    """Images (contexts) a pass."""
    store: str = ""
    """The store that says where subject and images were; the run's own by default."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/ and runs/; $TENDRIL_HOME, or here, by default."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not self.run:
            raise ConfigError("--run wants one run or more, and got none.")
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size is 1 or more, and not {self.batch_size}.")
