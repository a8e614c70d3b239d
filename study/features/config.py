"""What a study of a language model's features can be asked. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

from ..core.config import LanguageConfig, at_least

PARTS = ("train", "held_out", "all")
LARGEST_WINDOW = 1024
MOST_QUANTILES = 20


@dataclass(frozen=True)
class FeaturesConfig(LanguageConfig):
    """Every latent of a language model's dictionary: where it is active, and what it promotes.

    Reads the run's store once and makes a page on which latents can be searched and sorted, and
    a CSV file. 250,000 tokens and 512 latents take seconds on two CPU cores; a million tokens and
    4,096 latents take some minutes. Memory: under 1 GB, and 6 kB a latent for its examples. The
    page takes about 4 kB a latent.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest."""
    part: str = "all"
    """Contexts that are read: train, held_out (those held out of training), or all."""
    limit: int | None = None
    """Most contexts that are read, spread evenly over the part; by default all."""
    top: int = 10
    """Activating examples of each latent: its strongest contexts."""
    quantiles: int = 5
    """Weaker examples of each latent, at evenly spread quantiles of its activation; 0 for none."""
    window: int = 32
    """Tokens that an example shows, two thirds of them before the one it is about."""

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
