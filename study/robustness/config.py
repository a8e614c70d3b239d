"""What the study of robustness can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from tendril.models.epsilon import check_epsilon

from ..core.config import VisionConfig, at_least, several_runs


@dataclass(frozen=True)
class RobustnessConfig(VisionConfig):
    """Do networks trained against attacks have less superposition? Dictionaries decide.

    Takes runs on networks of one architecture that were trained plainly and adversarially
    (`tendril train classifier`), at one site or several. On clean images, and on images attacked by
    FGSM and PGD, it measures each dictionary's error, L0 and effective features exp(H(p)), and
    compares robust networks with plain ones of the same width, beside the noise of seeds. Runs of
    PCA and random directions are the controls. A small network and 500 images take half a minute
    on a CPU core for PGD, and seconds for each dictionary.
    """

    run: tuple[str, ...] = ()
    """Runs, of several networks: paths, names in runs/, or beginnings of names."""
    labels: str = "inputs"
    """Right classes: `inputs`, those of the images themselves, or a class list; empty: the
    networks' own answers."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the attacks."""
    epsilon: float = 0.0
    """Size of the attacks, in units of pixels from 0 to 1; 0: the largest that one of the networks
    was trained against."""
    attack_steps: int = 20
    """Steps of PGD, of size 2.5 epsilon / steps."""
    limit: int = 500
    """Number of images, at most; none that a dictionary was trained on."""
    batch_size: int = 50
    """Images that pass through a network at once."""

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run, 2)
        check_epsilon(self.epsilon, self.norm, name="--epsilon")
        at_least(self, attack_steps=1, limit=10, batch_size=1)
