"""What the studies around curve detectors can be asked. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from tendril.data.errors import ConfigError

from ..measures.curve_scores import CurveThresholds

Flat = tyro.conf.arg(name="")


@dataclass(frozen=True)
class SourceConfig:
    """Where subject and images are, and where the report goes: what these studies share."""

    subject: str = ""
    """inceptionv1, handmade, or FILE.py:FUNCTION; the run's own by default."""
    weights: str = ""
    """A file of weights, or `lucent` (inceptionv1); the run's own by default."""
    normalisation: str = ""
    """Response normalisation of inceptionv1: auto, lucent or sibling; the run's by default."""
    inputs: str = ""
    """Where the harvested images are; where they were by default."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; $TENDRIL_HOME, or here, by default."""
    name: str = ""
    """First part of the report's name."""
    overwrite: bool = False
    """Make the report anew where it is there already."""


@dataclass(frozen=True)
class MissingConfig(SourceConfig):
    """Several runs, their curve latents against the curve units of their sites."""

    run: tuple[str, ...] = ("latest",)
    """The runs: paths, names in runs/, beginnings of names, or latest. Several seeds of a site
    are told together; baselines (--objectives random) are the controls. Runs on another
    subject, one of random weights say, are units and latents of their own."""
    units: tuple[int, ...] = ()
    """Units to take apart; by default those whose tuning curves have two peaks, strongest first."""
    most_units: int = 6
    """Units to take apart at most, of each site."""
    pieces: int = 3
    """Latents that a unit is taken apart into."""
    rows: int = 20_000
    """Rows of the store that the pieces are chosen on, at most; held-out ones come on top."""
    examples: int = 4
    """Dataset examples of each unit taken apart and of each piece; 0 for none."""
    umap: bool = True
    """Draw UMAP's picture of the decoder rows beside that of their principal components."""
    orientation_step: float = 5.0
    """Degrees from one orientation to the next."""
    radii: tuple[float, ...] = ()
    """Radii of the drawn curves, in pixels; by default those that suit the receptive field."""
    thresholds: Annotated[CurveThresholds, Flat] = field(default_factory=CurveThresholds)

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not self.run:
            raise ConfigError("--run wants one run or more, and got none.")
        for name, least in (("pieces", 1), ("rows", 100), ("most_units", 0), ("examples", 0)):
            _at_least(name, getattr(self, name), least)


@dataclass(frozen=True)
class JointConfig(SourceConfig):
    """Joint tuning on photographs of the curve units of a site, and of a run's latents."""

    run: str = "latest"
    """The run whose site, store and images are used."""
    latents: tuple[int, ...] = ()
    """Latents to record and to take patches of, besides the curve units."""
    images: int = 10
    """Patches of each unit: those that excite it most, one a photograph."""
    step: float = 1.0
    """Degrees from one turn of a patch to the next."""
    orientation_step: float = 5.0
    """Degrees between the orientations of the synthetic curves that it is held against."""
    radii: tuple[float, ...] = ()
    """Radii of those, in pixels; by default the ones that suit the receptive field."""
    thresholds: Annotated[CurveThresholds, Flat] = field(default_factory=CurveThresholds)

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        _at_least("images", self.images, 1)
        turns = 360 / self.step if self.step > 0 else 0.0
        if turns < 12 or abs(turns - round(turns)) > 1e-6:
            raise ConfigError(f"--step divides 360 degrees into 12 or more, unlike {self.step:g}.")


@dataclass(frozen=True)
class VisualiseConfig(SourceConfig):
    """Images that excite units, latents or blocks of a group crosscoder most."""

    run: str = "latest"
    """The run whose site and latents are shown; "" for units only."""
    site: str = ""
    """Where units are; the run's site by default."""
    units: tuple[int, ...] = ()
    """Units to show."""
    latents: tuple[int, ...] = ()
    """Latents to show: the direction of their decoder rows, for a group one a block."""
    cosine: float = 1.0
    """Power of the cosine that the dot product is multiplied by; 0 for the dot product alone."""
    steps: int = 256
    """Steps of Adam."""
    margin: int = 8
    """Pixels beyond the receptive field, within which an image is shifted from step to step."""
    seed: int = 0
    """Seed of the first image and of the shifts."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not (self.units or self.latents):
            raise ConfigError("--units or --latents say what to show; give one number or more.")
        for name, least in (("steps", 1), ("margin", 0), ("cosine", 0), ("seed", 0)):
            _at_least(name, getattr(self, name), least)


def _at_least(name: str, value: int | float, least: int | float) -> None:
    if value < least:
        raise ConfigError(f"--{name.replace('_', '-')} is {least:g} or more, and not {value:g}.")
