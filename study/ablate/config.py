"""What the study of ablated latents can be asked. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

from ..core.config import LanguageConfig, at_least


@dataclass(frozen=True)
class AblateConfig(LanguageConfig):
    """What a language model predicts otherwise when one latent is removed.

    Subtracts each --latent in turn from the site on held-out contexts, x' = x - z d, and reports
    where it is active: KL, the change of the cross-entropy, and the tokens whose log-probability
    falls and rises most. Seconds for a small model; makes a page and tables.
    """

    run: str = "latest"
    """Run: a path, a name in runs/, the beginning of just one, or latest."""
    latent: tuple[int, ...] = ()
    """Numbers of the latents, each ablated by itself."""
    inputs: str = ""
    """Text, or self[:SEED] for text that the model writes; by default the store's held-out
    contexts."""
    limit: int | None = None
    """Number of contexts, drawn at random, the same ones each time; by default all."""
    tokens: int = 10
    """Number of tokens shown whose log-probability falls most, and as many that rise most."""
    batch_size: int = 16
    """Contexts that pass through the model at once."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not self.latent:
            raise ConfigError("--latent must give the numbers of one latent or more; e.g. 17.")
        at_least(self, tokens=1, batch_size=1, **({} if self.limit is None else {"limit": 1}))
