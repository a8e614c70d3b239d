"""What a study of features can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar

from tendril.data.errors import ConfigError

from ..core.config import StudyConfig, VisionConfig, at_least

PARTS = ("train", "held_out", "all")
LARGEST_WINDOW = 1024
MOST_QUANTILES = 20


@dataclass(frozen=True)
class FeaturesConfig(VisionConfig):
    """Every latent of a dictionary: where it is active, and what it promotes or which images
    excite it.

    Reads the run's store once and makes a page on which latents can be searched and sorted, and
    a CSV file. Of a language model the page shows text, of a vision network images with the
    latent's map over them, and the classes of images where they are known. 250,000 tokens and
    512 latents take seconds on two CPU cores; a million tokens and 4,096 latents take some
    minutes. Memory: under 1 GB, and 6 kB a latent for its examples. The page takes about 4 kB a
    latent, and 2 to 12 kB an image.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest."""
    part: str = "all"
    """Contexts or images that are read: train, held_out (those held out of training), or all."""
    limit: int | None = None
    """Most contexts or images that are read, spread evenly over the part; by default all."""
    top: int = 10
    """Activating examples of each latent: its strongest contexts or images."""
    quantiles: int = 5
    """Weaker examples of each latent, at evenly spread quantiles of its activation; 0 for none."""
    window: int = 32
    """Tokens that an example shows, two thirds of them before the one it is about."""
    store: str = ""
    """Store of the run's activations; by default the one it was trained on."""
    subject: str = ""
    """Language model (a folder, a name on the Hugging Face hub, or package:NAME) or vision network
    (as for `tendril harvest images`); by default the store's own."""
    labels: str = ""
    """File whose line i begins with the id of class i, followed by the name of the class. The class
    of an image is the id that begins the name of its file, or of a folder above it. By default the
    classes are those in the store."""
    maps: bool = True
    """Run the network on the images that are shown, for the map of the latent over the whole
    image, where the store holds some positions only."""

    NO_SETTING: ClassVar[frozenset[str]] = StudyConfig.NO_SETTING | {"labels", "maps"}

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if self.part not in PARTS:
            raise ConfigError(f"--part must be one of {', '.join(PARTS)}; got {self.part!r}.")
        at_least(self, top=1, quantiles=0, window=1)
        if self.limit is not None:
            at_least(self, limit=1)
        for name, most in (("quantiles", MOST_QUANTILES), ("window", LARGEST_WINDOW)):
            if getattr(self, name) > most:
                raise ConfigError(f"--{name} must be {most} or less; got {getattr(self, name)}.")
