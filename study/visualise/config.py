"""What feature visualisation can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar

from tendril.data.errors import ConfigError

from ..core.config import VisionConfig, at_least


@dataclass(frozen=True)
class VisualiseConfig(VisionConfig):
    """Images that are optimised to excite units (--units) or latents (--latents).

    Makes a page with one image for each unit and latent. A latent of a group crosscoder has one
    image for each element of the group. `--run "" --subject SUBJECT --site SITE --units 3 7` shows
    units without a dictionary. An image of InceptionV1's mixed3b takes a few seconds on two CPU
    cores.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest; "" for units only."""
    site: str = ""
    """Where the units are; by default the run's site."""
    units: tuple[int, ...] = ()
    """Units to show."""
    latents: tuple[int, ...] = ()
    """Latents to show, by the directions of their decoder rows."""
    cosine: float = 1.0
    """Power of the cosine that multiplies the dot product; 0 for the dot product alone."""
    steps: int = 256
    """Steps of Adam."""
    margin: int = 8
    """Width in pixels of the border around the receptive field, within which images are shifted."""
    seed: int = 0
    """Seed of the first image and of the shifts."""

    NO_SETTING: ClassVar[frozenset[str]] = VisionConfig.NO_SETTING | {"site"}

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not (self.units or self.latents):
            raise ConfigError(
                "--units or --latents must say what to show; got neither. Give one number or more."
            )
        at_least(self, steps=1, margin=0, cosine=0, seed=0)
