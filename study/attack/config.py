"""What the study of attacks can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from tendril.data.errors import ConfigError
from tendril.models.epsilon import check_epsilon

from ..core.config import StudyConfig, at_least

USUAL = {"linf": 8 / 255, "l2": 0.5}
TIMES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class AttackConfig(StudyConfig):
    """How often an attack fools a network: accuracy against the strength of PGD.

    A curve over epsilon, and the checks that tell a robust network from one whose gradients are
    masked: an attack without bound, more steps, a single step, noise, and images that were attacked
    through other networks. 500 images take about a minute for a small CNN and ten for a ResNet of
    8 layers on one CPU core.
    """

    subject: str = ""
    """Network with logits: a run of `tendril train classifier`, torchvision:NAME, timm:NAME,
    hf:NAME, inceptionv1 or FILE.py:FUNCTION."""
    weights: str = ""
    """Weights of inceptionv1, timm and torchvision: a file, or random[:SEED]."""
    normalisation: str = ""
    """Response normalisation of inceptionv1: auto, lucent or sibling."""
    inputs: str = ""
    """Images with classes: a parquet file, a folder with a subfolder for each class, or hf:NAME."""
    labels: str = ""
    """File with a class a line, for images whose names begin with the id of their class; by default
    (or with `inputs`) the classes that the inputs have themselves."""
    others: tuple[str, ...] = ()
    """Other networks of the same input size, through which images are attacked as well."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the attack."""
    epsilon: float = 0.0
    """Strength that the checks are made at, in units of pixels in 0..1; 0: 8/255 for linf, 0.5 for
    l2."""
    epsilons: tuple[float, ...] = ()
    """Strengths of the curve; by default 0, a quarter, half, 1, 1.5, 2 and 4 times --epsilon."""
    steps: int = 20
    """Steps of PGD, each of 2.5 epsilon / steps."""
    images: int = 500
    """Number of images, drawn with a fixed seed."""
    seed: int = 0
    """Seed of the random starts."""

    @property
    def strength(self) -> float:
        """The epsilon of the checks."""
        return self.epsilon or USUAL[self.norm]

    @property
    def curve(self) -> tuple[float, ...]:
        """The strengths of the curve, in ascending order."""
        most = 1.0 if self.norm == "linf" else float("inf")
        usual = (float(f"{min(times * self.strength, most):.6g}") for times in TIMES)
        return tuple(sorted(set(self.epsilons or usual)))

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        at_least(self, steps=1, images=10)
        if not self.subject or not self.inputs:
            raise ConfigError(
                "`tendril study attack` needs --subject and --inputs, a network and images with "
                f"their classes; got {self.subject!r} and {self.inputs!r}."
            )
        for value in (self.epsilon, *self.epsilons):
            check_epsilon(value, self.norm, name="--epsilon")
