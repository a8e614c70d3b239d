"""What the study of feature patching can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from tendril.data.errors import ConfigError

from ..core.config import LanguageConfig, at_least, several_runs


@dataclass(frozen=True)
class PatchingConfig(LanguageConfig):
    """How few features must be changed for a model to answer one prompt as it answers another?

    Generates pairs of prompts that differ in a name (Lily saw Tim in the park. Lily said, "Hello,)
    and replaces features of one prompt by those of the other: latents of dictionaries against
    principal components and random directions, in orders by ACDC (Cunningham et al. 2309.08600),
    greedily and by attribution. Makes a page of curves and tables. Half a minute to two minutes a
    run for a small model; runs without sparsity take longest.
    """

    run: tuple[str, ...] = ("latest",)
    """Runs of one site: paths, names in runs/, beginnings of names, or latest."""
    pairs: int = 96
    """Number of generated pairs of prompts."""
    fitted: int = 32
    """Number of pairs among those that decide the order of the features. The others are
    reported."""
    prompts: Literal["dialogue", "ioi", "conversa"] = "dialogue"
    """Templates: dialogue (who is spoken to, in the words of children's stories), ioi (who is
    given something, for models that can do the usual task), or conversa (the same in
    Portuguese)."""
    change: Literal["name", "same-name", "speaker"] = "name"
    """What the counterfactual prompt changes: name (the name that should come next, everywhere),
    same-name (as name, with the same two names in all pairs, so that one order of features can
    serve all), or speaker (who speaks, so that the other name should come next)."""
    names: tuple[str, ...] = ()
    """First names for the prompts; by default a list of common ones."""
    positions: Literal["after", "last"] = "after"
    """Where features are changed: from the first token that differs on, or at the last token."""
    features: int = 64
    """Most features that are changed."""
    candidates: int = 48
    """Number of features that a greedy order chooses from: those that change most."""
    greedy: int = 24
    """Number of features that are chosen greedily, for all pairs and for each; 0 for no greedy
    orders."""
    acdc: int = 12
    """Number of thresholds of ACDC, which leaves out each feature without which KL rises by less;
    0 for no orders by ACDC."""
    rows: int = 131_072
    """Rows of the store that the principal components are fitted on, at most."""
    seed: int = 0
    """Seed of the pairs, of the random directions and of the resampled pairs of intervals."""
    batch_size: int = 512
    """Prompts that pass through the model at once."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run)
        at_least(self, fitted=1, features=1, candidates=1, rows=1, batch_size=1, greedy=0, acdc=0)
        if self.pairs <= self.fitted:
            raise ConfigError(
                f"--pairs must be more than the {self.fitted} that decide the order (--fitted); "
                f"got {self.pairs}."
            )
