"""What can be asked of a study of a crosscoder's parts. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError


@dataclass(frozen=True)
class PartsConfig:
    """Which parts of a crosscoder, layers or networks, each of its latents is of."""

    run: str = "latest"
    """The crosscoder: a path, a name in runs/, the beginning of one, or latest."""
    bins: int = 50
    """Bars of the histogram."""
    own: float = 0.1
    """A latent is a part's own where the others' share of its norms is below this."""
    home: str = ""
    """Folder that holds runs/ and reports/; $TENDRIL_HOME, or here, by default."""
    name: str = ""
    """First part of the report's name; that of the run by default."""
    overwrite: bool = False
    """Make the report anew where it is there already."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if self.bins < 2:
            raise ConfigError(f"--bins is 2 or more, and not {self.bins}.")
        if not 0 < self.own < 0.5:
            raise ConfigError(f"--own is a share between 0 and .5, and not {self.own:g}.")
