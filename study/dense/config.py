"""What the study of dense latents can be asked. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

from ..core.config import VisionConfig, at_least, several_runs


@dataclass(frozen=True)
class DenseConfig(VisionConfig):
    """Which latents are active on more than a tenth of the vectors, and what they stand for.

    Density, opposed pairs, and what activations go with: position, first letter and class of the
    token, or brightness and edges of the image; principal components; what the unembedding does not
    read. It writes the span of dense latents and one of as many others, for
    `tendril train RECIPE --remove-span FILE`: if dense latents come from that span of the data, few
    come back without it. 20,000 rows of 2,048 latents take about a minute.
    """

    run: tuple[str, ...] = ("latest",)
    """Runs of one site; the first is described, and all are counted. Paths, names in runs/,
    beginnings of names, or latest."""
    dense: float = 0.1
    """A latent is dense if it is active on more than this fraction of held-out vectors."""
    rows: int = 20_000
    """Rows that activations are read on."""
    seed: int = 0
    """Seed of the latents that others are drawn with."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run)
        at_least(self, rows=100)
        if not 0 < self.dense < 1:
            raise ConfigError(f"--dense must be a fraction between 0 and 1; got {self.dense:g}.")
