"""What the study of a crosscoder's layer or model shares can be asked. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

from ..core.config import StudyConfig, at_least, several_runs


@dataclass(frozen=True)
class PartsConfig(StudyConfig):
    """Which layers, or which of two networks, each latent of a crosscoder belongs to.

    Reads the fraction of a latent's decoder norm that lies in each layer or network; makes a
    histogram, a table and a page; takes seconds. Of a crosscoder of two networks (--paired-store)
    it also reads both stores and tests by latent scaling whether the network that seems to lack a
    latent does lack it. Several runs are compared in one table.
    """

    run: tuple[str, ...] = ("latest",)
    """Crosscoders: paths, names in runs/, beginnings of names, or latest."""
    bins: int = 50
    """Bars of the histogram."""
    own: float = 0.1
    """A latent belongs to one part if the others hold less than this fraction of its norm."""
    best_directions: bool = False
    """Look in each network for the direction that fits best, in place of the latent's own: for
    networks whose bases have nothing in common. Always so where widths differ."""
    rows: int = 200_000
    """Most rows that are read for latent scaling, spread evenly over the stores."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run)
        at_least(self, bins=2, rows=1)
        if not 0 < self.own < 0.5:
            raise ConfigError(f"--own must be a fraction between 0 and 0.5; got {self.own:g}.")
