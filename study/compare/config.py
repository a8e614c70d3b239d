"""What a comparison of runs can be asked. Imports no torch."""

from dataclasses import dataclass

from ..core.config import StudyConfig, several_runs


@dataclass(frozen=True)
class CompareConfig(StudyConfig):
    """Compare runs: which latents they share, how stable these are, and which are dense.

    Pairs the latents of each two runs (Hungarian method), counts the shared ones, finds dense
    latents and their antipodal pairs, and makes a page. Four runs of 768 latents take seconds;
    time grows with the cube of the number of latents.
    """

    run: tuple[str, ...] = ()
    """Two runs or more: paths, names in runs/, or beginnings of names."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run, least=2)
