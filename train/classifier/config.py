"""The configuration of a classifier. No torch here: `--help` must answer at once."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, final

from tendril.data.cli import check_finite
from tendril.data.errors import ConfigError
from tendril.models.epsilon import check_epsilon

FORMAT = 1  # raised when the same config would give another network
GREY, RGB = 1, 3
NOT_IDENTITY = (
    *("inputs", "test_inputs", "device", "threads", "home", "name", "overwrite"),
    *("log_every", "checkpoint_every", "test_steps", "test_epsilon", "attacked"),
)


@final
@dataclass(frozen=True)
class ClassifierConfig:
    """A network, the images that it is trained and tested on, and how it is trained."""

    inputs: str = ""
    """Training images with classes: a parquet file with the columns image and label, a folder with
    a subfolder for each class, or hf:NAME[@SPLIT]."""
    test_inputs: str = ""
    """Images to test on, with the same classes."""
    limit: int | None = None
    """Number of training images, drawn at random with a fixed seed; by default all."""
    left_out: tuple[str, ...] = ()
    """Classes, by name or number, whose images the network is neither trained nor tested on, for
    `tendril study ood --left-out`. Classes keep their numbers."""
    network: Literal["cnn", "resnet8", "resnet14", "resnet20"] = "cnn"
    """A small CNN for MNIST, or a CIFAR ResNet of so many layers."""
    width: int = 16
    """Channels of the first convolution; later ones have two and four times as many."""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """Channels of the images; auto takes grey if all training images are grey."""
    size: int = 0
    """Side in pixels that the images are scaled and cropped to; 0: 28 for the CNN, 32 for
    ResNets."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 128
    """Images in a step."""
    lr: float = 0.1
    """Largest learning rate."""
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    """The learning rate rises linearly for a quarter of the steps and falls linearly to 0, or
    falls from the start like half a cosine."""
    momentum: float = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay of convolutions and linear layers."""
    shift: int = 2
    """Augmentation: images are shifted by up to so many pixels, and filled with black."""
    flip: bool = False
    """Augmentation: half of the images are mirrored left to right."""
    attack: Literal["none", "fgsm", "pgd"] = "none"
    """Adversarial training: every image is replaced by its attacked version. FGSM starts from a
    random point and takes one step of 1.25 epsilon."""
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the attack."""
    epsilon: float = 0.0
    """Strength of the attack, in units of pixels in 0..1 (4/255 is 0.0157)."""
    attack_steps: int = 7
    """Steps of PGD in training, each of 2.5 epsilon / steps."""
    ramp: float = 0.1
    """Part of the steps in which the strength of the attack rises from 0; training at full strength
    from the start can stay at chance."""
    test_epsilon: float = 0.0
    """Strength of the PGD that the finished network is tested with; 0: that of training."""
    test_steps: int = 20
    """Steps of PGD in the test."""
    attacked: int = 2000
    """Number of test images that are attacked, drawn with a fixed seed."""
    seed: int = 0
    """Seed of the weights, the order of the images, augmentation and random starts."""
    log_every: int = 50
    """Steps between lines of metrics.csv."""
    checkpoint_every: int = 200
    """Steps between checkpoints; 0: none."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:N or mps."""
    threads: int = 0
    """CPU threads; 0: as many as torch takes."""
    name: str = ""
    """First part of the run's name; by default the network and the data."""
    home: str = ""
    """Folder that holds runs/; by default $TENDRIL_HOME, or the current folder."""
    overwrite: bool = False
    """Train again what exists already."""

    @property
    def side(self) -> int:
        """The side of the images."""
        return self.size or (28 if self.network == "cnn" else 32)

    @property
    def tested(self) -> float:
        """The epsilon of the test."""
        return self.test_epsilon or (self.epsilon if self.attack != "none" else 0.0)

    def identity(self) -> dict[str, Any]:
        """The fields that determine the network."""
        fields = dataclasses.asdict(self)
        without = set(NOT_IDENTITY)
        if not self.left_out:
            without.add("left_out")
        if self.attack == "none":
            without |= {"norm", "epsilon", "ramp"}
        if self.attack != "pgd":
            without.add("attack_steps")
        return {n: v for n, v in fields.items() if n not in without} | {"format": FORMAT}

    def check(self) -> None:
        """Raise ConfigError for values that cannot be trained with."""
        check_finite(self)
        for name in ("width", "epochs", "batch_size", "attack_steps", "test_steps", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{_flag(name)} must be at least 1; got {getattr(self, name)}.")
        for name in ("shift", "checkpoint_every", "size", "attacked", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{_flag(name)} must be at least 0; got {getattr(self, name)}.")
        if not self.lr > 0 or not 0 <= self.momentum < 1:
            raise ConfigError(
                f"--lr must be above 0 and --momentum from 0 to below 1; got {self.lr} and "
                f"{self.momentum}."
            )
        if not 0 <= self.ramp <= 1:
            raise ConfigError(f"--ramp must be from 0 to 1; got {self.ramp:g}.")
        if not self.inputs or not self.test_inputs:
            raise ConfigError(
                "train classifier needs --inputs and --test-inputs, e.g. mnist-train.parquet and "
                f"mnist-test.parquet; got {self.inputs!r} and {self.test_inputs!r}."
            )
        for name in ("epsilon", "test_epsilon"):
            check_epsilon(getattr(self, name), self.norm, name=f"--{_flag(name)}")
        if (self.attack != "none") != (self.epsilon > 0):
            raise ConfigError(
                "--attack fgsm or pgd and an --epsilon above 0 belong together; got --attack "
                f"{self.attack} --epsilon {self.epsilon:g}. Give both, or neither."
            )


def _flag(name: str) -> str:
    return name.replace("_", "-")


def classifier() -> ClassifierConfig:
    """Train a small image classifier, plain or adversarially: a network to study.

    The run has the network, its training curve, and its accuracy on the test images, clean and
    under PGD. Harvest it with `tendril harvest images --subject RUN`. A stopped training continues,
    and ends with the same bits. On one core the CNN of width 16 takes about 10 seconds an epoch on
    MNIST, and resnet8 of width 16 about a minute on CIFAR-10; PGD with 7 steps takes about six
    times as long.
    """
    return ClassifierConfig()
