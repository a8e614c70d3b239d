"""What the study of matched layers can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..core.config import LanguageConfig, StudyConfig, at_least, several_runs


@dataclass(frozen=True)
class MatchConfig(LanguageConfig):
    """Which latent of the next layer continues each latent of this one.

    Pairs the latents of each run with those of the next by their weights, with thresholds folded
    (SAE Match), or by their activations where layers differ in width; joins the pairs into chains;
    checks them by activations; and, in a causal language model, replaces a layer by the matched
    dictionary of the layer before. 1,024 latents a layer take seconds; time grows with the cube.
    """

    run: tuple[str, ...] = ()
    """Runs in the order of their layers, of one store: paths, names in runs/, or beginnings of
    names."""
    by: Literal["auto", "weights", "activations"] = "auto"
    """Match by folded weights, by the correlation of activations, or by weights where two layers
    are equally wide and else by activations."""
    rows: int = 20_000
    """Rows that activations are compared on, held out of training where there are enough."""
    contexts: int = 100
    """Contexts that layers are skipped on; 0 for none. Only in causal language models."""
    shown: int = 40
    """Chains on the page."""
    batch_size: int = 16
    """Contexts that pass through the model at once."""

    NO_SETTING: ClassVar[frozenset[str]] = StudyConfig.NO_SETTING

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run, least=2)
        at_least(self, rows=100, contexts=0, shown=1, batch_size=1)
