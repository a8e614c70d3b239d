"""What the study of causal trees can be asked. Imports no torch."""

from dataclasses import dataclass

from tendril.data.errors import ConfigError

from ..core.config import LanguageConfig, at_least, fractions, several_runs


@dataclass(frozen=True)
class CausesConfig(LanguageConfig):
    """Which latents of earlier sites cause a latent of a later site? A tree of causes.

    Takes contexts in which the latent reaches at least half of its maximum, removes latents of the
    site before, each by itself, and ranks them by what the latent loses; then asks the same of the
    strongest causes, site by site (Cunningham et al. 2309.08600). Gradients choose which latents
    are removed. Controls are other latents of equal activity. Seconds for a small model; makes a
    page with the contexts of each latent, and tables.
    """

    run: tuple[str, ...] = ()
    """Runs of two sites or more of one store, a run a site: paths, names in runs/ or beginnings of
    names. The model computes their sites in some order, and the tree follows it."""
    latent: int = -1
    """Number of the latent of the last site whose causes are looked for."""
    inputs: str = ""
    """Text, or self[:SEED] for text that the model writes; by default the store's held-out
    contexts."""
    limit: int | None = None
    """Number of contexts, drawn at random, the same ones each time; by default all."""
    contexts: int = 20
    """Number of contexts of each latent, with activations from half of its maximum up."""
    exact: int = 100
    """Number of latents of a site that are removed: those of the largest attribution."""
    audit: int = 20
    """Number of active latents beyond these, drawn at random, that are removed to see what the
    attribution misses."""
    branches: int = 3
    """Number of causes of a latent whose own causes are looked for."""
    least: float = 0.1
    """Least fraction of a latent's activation that removing a cause takes away."""
    draws: int = 4
    """Number of other latents of equal activity that are removed as controls of each cause."""
    examples: int = 3
    """Number of contexts of each latent that are shown."""
    seed: int = 0
    """Seed of the contexts and of what is drawn."""
    batch_size: int = 64
    """Contexts that pass through the model at once."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run, 2)
        if self.latent < 0:
            raise ConfigError(
                "--latent must give the number of a latent of the last site; e.g. 17."
            )
        at_least(self, contexts=1, exact=1, audit=0, branches=1, draws=0, examples=1, batch_size=1)
        at_least(self, **({} if self.limit is None else {"limit": 1}))
        fractions(self, ("least",))
