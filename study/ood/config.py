"""What the study of inputs outside a network's training can be asked. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from tendril.data.errors import ConfigError

from ..core.config import StudyConfig, VisionConfig, at_least, several_runs

NOISE = "noise"


@dataclass(frozen=True)
class OodConfig(VisionConfig):
    """Tell inputs unlike those of training by the latents that are active.

    A class activation profile (CAP) is the mean code of a class on images that the dictionary was
    trained on. The score of a new image is the KL divergence of its own code from the profile of
    the class that the network answers. AUROC and FPR95 stand beside those of maximum softmax,
    energy, Mahalanobis distance and nearest neighbours, and of profiles of units and of random
    dictionaries. 10,000 images of 32 pixels and a small network take a minute on a CPU core.
    """

    run: tuple[str, ...] = ("latest",)
    """Runs of one site, e.g. several seeds: paths, names in runs/, beginnings of names, or latest.
    """
    outside: tuple[str, ...] = ("dead-leaves", NOISE)
    """Images outside: folders, parquet files, hf:NAME_OR_PATH[@SPLIT], dead-leaves[:SEED], or
    noise (each pixel drawn by itself)."""
    inside: str = ""
    """Images inside, none of which a run was trained on; by default the held-out images of the
    runs' store."""
    left_out: tuple[str, ...] = ()
    """Classes of the store's images that the network was not trained on, by name or number. They
    are one more set of outside images, near to the inside ones."""
    fit_images: int = 10_000
    """Images that profiles and baselines are computed from, at most: those the runs were trained
    on."""
    limit: int = 2_000
    """Images of each set that is scored, at most."""
    core: float = 0.15
    """Fraction of the latents, those largest in a class's profile, that its score looks at."""
    code: Literal["spatial", "pooled"] = "spatial"
    """Code of an image: the mean of its positions' codes, or the code of the mean vector."""
    neighbours: int = 50
    """The nearest-neighbour score is the distance to the neighbour of this number."""
    batch_size: int = 64
    """Images that pass through the network at once."""

    NO_SETTING: ClassVar[frozenset[str]] = StudyConfig.NO_SETTING | {"inside", "outside"}

    def check(self) -> None:
        """Raise ConfigError where a value cannot be used."""
        several_runs(self.run)
        at_least(self, fit_images=20, limit=10, neighbours=1, batch_size=1)
        if not self.outside and not self.left_out:
            raise ConfigError(
                "--outside must name images unlike those of training, e.g. dead-leaves or a "
                "folder; got none."
            )
        if not 0 < self.core <= 1:
            raise ConfigError(f"--core must be above 0 and at most 1; got {self.core:g}.")
