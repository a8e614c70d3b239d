"""What can be asked of a study of a language model's features. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

PARTS = ("train", "held_out", "all")  # data.reader's, which imports torch
LARGEST_WINDOW = 1024


@dataclass(frozen=True)
class FeaturesConfig:
    """Every latent of a dictionary of a language model: where it is on, and what it writes."""

    run: str = "latest"
    """The run: a path, a name in runs/, the beginning of one, or latest."""
    store: str = ""
    """The store whose text is read; the run's own by default."""
    subject: str = ""
    """The language model: a folder, a name, or package:NAME; where the store's was by default."""
    part: str = "all"
    """The contexts that are read: train, held_out (those kept back from training), or all."""
    limit: int | None = None
    """So many contexts, spread evenly over the part; all of them by default."""
    top: int = 10
    """Contexts shown of those that excite each latent most."""
    quantiles: int = 5
    """Examples shown of weaker activations, at evenly spread quantiles; 0 for none."""
    window: int = 32
    """Tokens shown of a context, two thirds of them before the one that it is shown for."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; $TENDRIL_HOME, or here, by default."""
    name: str = ""
    """First part of the report's name; subject and site by default."""
    overwrite: bool = False
    """Make the report anew where it is there already."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if self.part not in PARTS:
            raise ConfigError(f"--part is one of {', '.join(PARTS)}, and not {self.part!r}.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit is 1 context or more, and not {self.limit}.")
        if self.top < 1 or not 0 <= self.quantiles <= 20:
            raise ConfigError(
                f"--top is 1 or more and --quantiles from 0 to 20, and not {self.top} and "
                f"{self.quantiles}."
            )
        if not 1 <= self.window <= LARGEST_WINDOW:
            raise ConfigError(
                f"--window is from 1 to {LARGEST_WINDOW} tokens, and not {self.window}."
            )
