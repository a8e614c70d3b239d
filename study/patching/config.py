"""What can be asked of the causal studies. Imports no torch: `--help` answers at once."""

from dataclasses import dataclass
from typing import Literal

from tendril.data.errors import ConfigError


@dataclass(frozen=True)
class AblateConfig:
    """What a language model says otherwise where a latent is taken away."""

    run: str = "latest"
    """The run: a path, a name in runs/, the beginning of one, or latest."""
    latent: tuple[int, ...] = ()
    """Numbers of the latents, each ablated by itself."""
    inputs: str = ""
    """A text, or self[:SEED]; by default the store's contexts that were held out of training."""
    limit: int | None = None
    """So many contexts, the same ones each time; all by default."""
    tokens: int = 10
    """Tokens shown whose log-probability falls, and rises, most."""
    batch_size: int = 16
    """Contexts a pass."""
    subject: str = ""
    """The language model; the store's own by default."""
    store: str = ""
    """The store whose text is read; the run's own by default."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/ and runs/; $TENDRIL_HOME, or here, by default."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not self.latent:
            raise ConfigError("--latent wants the numbers of one latent or more, e.g. 17.")
        for name in ("tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is 1 or more.")


@dataclass(frozen=True)
class PatchingConfig:
    """How few features must be changed for one prompt to be answered as another."""

    run: tuple[str, ...] = ("latest",)
    """One run or more of the same site: paths, names in runs/, beginnings of names, or latest."""
    pairs: int = 96
    """Pairs of prompts, generated."""
    fitted: int = 32
    """Pairs, among those, that decide the order of the features; the others are reported."""
    prompts: Literal["dialogue", "ioi"] = "dialogue"
    """Who is spoken to, in the words of children's stories; or the usual task, who is given
    something, for models that can do it."""
    change: Literal["name", "same-name", "speaker"] = "name"
    """What the counterfactual changes: the name that should come next, everywhere, drawn for each
    pair or the same two names in all (so that one order of features can serve all); or who speaks
    (so that the other name should come)."""
    names: tuple[str, ...] = ()
    """First names for the prompts; a list of common ones by default."""
    positions: Literal["after", "last"] = "after"
    """Where features are changed: from the first token that differs on, or at the last token."""
    features: int = 64
    """Features changed at most."""
    candidates: int = 48
    """Features that a greedy order chooses from: those that change most."""
    greedy: int = 24
    """Features that are chosen greedily, for all pairs and for each; 0: no greedy orders."""
    rows: int = 131_072
    """Rows of the store that the principal components are fitted on, at most."""
    seed: int = 0
    """Seed of the pairs."""
    batch_size: int = 512
    """Prompts a pass."""
    subject: str = ""
    """The language model; the store's own by default."""
    store: str = ""
    """The store that the components are fitted on; the runs' own by default."""
    device: str = "auto"
    """auto, cpu or cuda."""
    home: str = ""
    """Folder that holds store/, runs/ and reports/; $TENDRIL_HOME, or here, by default."""
    name: str = ""
    """First part of the report's name; subject and site by default."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        if not self.run:
            raise ConfigError("--run wants one run or more, and got none.")
        for name in ("fitted", "features", "candidates", "rows", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is 1 or more.")
        if self.pairs <= self.fitted:
            raise ConfigError(
                f"--pairs wants more than the {self.fitted} that decide the order (--fitted), and "
                f"got {self.pairs}."
            )
