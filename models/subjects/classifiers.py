"""Small classifiers that `tendril train classifier` trains: a CNN for MNIST, ResNets for CIFAR.

They take pixels in 0..1 [B, C, H, W], normalise them themselves, and give logits [B, V]. Every
activation is the output of a module of its own, so every dotted module name is a site. A trained
network is a run: a folder in runs/ with config.json and network.safetensors, and a subject.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tendril.data.errors import ConfigError
from tendril.data.home import NETWORK

from ..dictionaries.checkpoint import CONFIG, RESULT, check_fields, check_files, read_json
from ..weights import load_weights, read_weights
from .subject import Subject, weights_digest

Architecture = Literal["cnn", "resnet8", "resnet14", "resnet20"]
BLOCKS = {"resnet8": 1, "resnet14": 2, "resnet20": 3}  # in each of the three stages
HIDDEN = 100  # units of the CNN's hidden layer


@final
@dataclass(frozen=True)
class ClassifierSpec:
    """What a classifier is built from. `mean` and `std` are those of the training pixels, one for
    each of the `channels` (1: grey, read from the red channel; 3: RGB)."""

    architecture: Architecture
    width: int
    classes: int
    size: int
    channels: int
    mean: list[float]
    std: list[float]


@final
class Normalise(nn.Module):
    """(x - mean) / std, for each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return (x - self.mean) / self.std


def cnn(spec: ClassifierSpec) -> nn.Module:
    """Two convolutions of 4 x 4 with stride 2, to `width` and twice `width` channels, and two
    linear layers. Source: Wong, Rice and Kolter, Fast is better than free (2001.03994), for MNIST,
    there with width 16."""
    side = spec.size // 4
    return nn.Sequential(
        _named(
            ("normalise", Normalise(spec.mean, spec.std)),
            ("conv1", nn.Conv2d(spec.channels, spec.width, 4, stride=2, padding=1)),
            ("relu1", nn.ReLU()),
            ("conv2", nn.Conv2d(spec.width, 2 * spec.width, 4, stride=2, padding=1)),
            ("relu2", nn.ReLU()),
            ("flatten", nn.Flatten()),
            ("hidden", nn.Linear(2 * spec.width * side * side, HIDDEN)),
            ("relu3", nn.ReLU()),
            ("logits", nn.Linear(HIDDEN, spec.classes)),
        )
    )


@final
class Block(nn.Module):
    """Two convolutions of 3 x 3 and a shortcut, a 1 x 1 convolution where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        changes = stride != 1 or channels != width
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if changes
            else nn.Identity()
        )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, H / stride, W / stride]."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(inner + self.shortcut(x))
        return out


def resnet(spec: ClassifierSpec, blocks: int) -> nn.Module:
    """A CIFAR ResNet of 6 `blocks` + 2 layers: stages of `width`, 2 `width` and 4 `width` channels.

    Source: He et al., Deep residual learning (1512.03385), section 4.2, with projection shortcuts.
    """
    stages: list[tuple[str, nn.Module]] = []
    channels = spec.width
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        width = spec.width * 2 ** (stage - 1)
        first = Block(channels, width, stride)
        rest = [Block(width, width, 1) for _ in range(blocks - 1)]
        stages.append((f"layer{stage}", nn.Sequential(first, *rest)))
        channels = width
    network = nn.Sequential(
        _named(
            ("normalise", Normalise(spec.mean, spec.std)),
            ("conv1", nn.Conv2d(spec.channels, spec.width, 3, 1, 1, bias=False)),
            ("bn1", nn.BatchNorm2d(spec.width)),
            ("relu1", nn.ReLU()),
            *stages,
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("logits", nn.Linear(channels, spec.classes)),
        )
    )
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return network


def _named(*parts: tuple[str, nn.Module]) -> OrderedDict[str, nn.Module]:
    """Modules with names, as nn.Sequential takes them."""
    return OrderedDict(parts)


BUILDERS: dict[str, Callable[[ClassifierSpec], nn.Module]] = {
    "cnn": cnn,
    **{name: partial(resnet, blocks=blocks) for name, blocks in BLOCKS.items()},
}


def build_classifier(spec: ClassifierSpec, seed: int = 0) -> nn.Module:
    """An untrained classifier with weights drawn by `seed`. Raises ConfigError for a spec that no
    network can have."""
    if spec.architecture not in BUILDERS:
        known = ", ".join(get_args(Architecture))
        raise ConfigError(f"--network must be one of {known}; got {spec.architecture!r}.")
    for value, least, name in ((spec.width, 1, "--width"), (spec.classes, 2, "classes")):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}; got {value}.")
    if spec.size % 4 or spec.size < 8:
        raise ConfigError(
            f"images must have sides of a multiple of 4 pixels, at least 8; got {spec.size}. Give "
            "--size 28 or 32."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[spec.architecture](spec)


def first_channels(rgb_BCHW: Float[Tensor, "b 3 h w"], channels: int) -> Float[Tensor, "b c h w"]:
    """RGB in 0..1 as a classifier takes it. A grey network reads the red channel, which is grey
    in a grey image: so an attack within a ball of RGB images is one within the ball of grey
    ones, also in the L2 norm."""
    return rgb_BCHW[:, :channels]


def load_classifier(run: Path) -> tuple[nn.Module, ClassifierSpec]:
    """The network of a finished run, in eval mode without gradients.

    Raises RunDamagedError for files that are missing or altered, and WeightsError for weights of
    another network.
    """
    check_files(run, *(n for n in (CONFIG, NETWORK.marker) if (run / RESULT).is_file()))
    config = read_json(run / CONFIG)
    described = config["network"]
    check_fields(described, ClassifierSpec, run / CONFIG, "network.")
    spec = ClassifierSpec(
        **{name: described[name] for name in [f.name for f in fields(ClassifierSpec)]}
    )
    network = build_classifier(spec)
    load_weights(network, read_weights(run / NETWORK.marker), str(run / NETWORK.marker))
    return network.eval().requires_grad_(False), spec


def classifier_subject(run: Path) -> Subject:
    """The network of a finished run as a subject. Raises what `load_classifier` raises."""
    network, spec = load_classifier(run)
    name = run.resolve().name.rpartition("-")[0] or run.resolve().name
    return Subject(
        name=name,
        module=network,
        preprocess=partial(first_channels, channels=spec.channels),
        input_size=spec.size,
        sites={n: (n,) for n, _ in network.named_modules() if n},
        identity={
            "name": spec.architecture,
            "weights": weights_digest(network),
            "network": asdict(spec),
        },
        logits="",
    )
