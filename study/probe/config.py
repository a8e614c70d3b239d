"""What the study of sparse probes can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar

from tendril.data.errors import ConfigError

from ..core.config import LanguageConfig, StudyConfig, at_least, fractions, several_runs


@dataclass(frozen=True)
class ProbeConfig(LanguageConfig):
    """Tell a label by the best 1, 2, 5 or 20 latents.

    Labels are classes of images, kinds of tokens, classes of documents, or the planted features of
    a synthetic store. For each label the best latents are chosen on a part of the inputs, and a
    logistic regression on them is judged on the others, beside the units of the site, its principal
    components and the whole vector. On planted trees of features the study also counts feature
    absorption. Two dictionaries of 512 latents and six labels: a minute on a CPU core.
    """

    run: tuple[str, ...] = ("latest",)
    """Runs of one store, of any sites: paths, names in runs/, beginnings of names, or latest. Runs
    that differ only in their seed share a row."""
    labels: str = ""
    """A file: of images a class list, of text the class of a document in each line; or inputs
    (classes that the images have), tokens (kinds of tokens), truth (planted features). By default
    what the store gives."""
    classes: tuple[str, ...] = ()
    """Classes taken together, as NAME=CLASS,FIRST-LAST, where ranges go by the order of names, e.g.
    dog=n02085620-n02113978. By default each class is a label."""
    k: tuple[int, ...] = (1, 2, 5, 20)
    """Numbers of latents in a probe."""
    examples: int = 20_000
    """Rows that are probed for tokens and features, at most, drawn at random. Images, and contexts
    of documents, are all taken, each as the mean over its rows."""
    most_labels: int = 20
    """Labels, at most: the most frequent ones."""
    splits: int = 3
    """Random splits of the inputs, whose figures are averaged."""
    judged: float = 0.3
    """Fraction of the inputs that a probe is judged on."""
    seed: int = 0
    """Seed of the examples, the splits and the shuffled labels."""

    NO_SETTING: ClassVar[frozenset[str]] = StudyConfig.NO_SETTING | {"labels"}

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run)
        at_least(self, examples=100, most_labels=1, splits=1, seed=0)
        fractions(self, ("judged",))
        if not 0 < self.judged < 1:
            raise ConfigError(f"--judged must be between 0 and 1; got {self.judged:g}.")
        if not self.k or min(self.k) < 1:
            raise ConfigError(
                f"--k must be numbers of latents from 1; got {' '.join(map(str, self.k)) or 'none'}"
                "."
            )
