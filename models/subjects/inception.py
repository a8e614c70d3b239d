"""InceptionV1 (GoogLeNet) as trained by Google in 2014-15, the network of Distill's Circuits.

Source: Szegedy et al., Going deeper with convolutions (1409.4842). Tensor names are those of the
PyTorch ports. Padding is TensorFlow's SAME, which is asymmetric for stride 2.
"""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tendril.data.errors import ConfigError

INPUT_SIZE = 224
CLASSES = 1008
LOGITS = "softmax2_pre_activation_matmul"  # the module whose output is the logits
MEAN = 117.0  # subtracted from RGB values in 0..255


@dataclass(frozen=True)
class Normalisation:
    """Local response normalisation b_c = a_c / (k + alpha / size * sum_j a_j^2)^beta.

    The sum is over `size` channels around c. Source: Krizhevsky et al., ImageNet classification
    with deep convolutional neural networks (2012), section 3.3, with alpha divided by `size` as
    in torch.
    """

    size: int
    alpha: float
    beta: float
    k: float


NORMALISATIONS = {
    "lucent": Normalisation(size=9, alpha=9.99999974738e-05, beta=0.5, k=1.0),
    "sibling": Normalisation(size=11, alpha=11e-4, beta=0.5, k=2.0),
}


@dataclass(frozen=True)
class Block:
    """Output channels of the convolutions of an inception block.

    Branch outputs are concatenated in the order of BRANCHES.
    """

    conv1x1: int
    bottleneck3x3: int
    conv3x3: int
    bottleneck5x5: int
    conv5x5: int
    pool_reduce: int

    @property
    def width(self) -> int:
        """Output channels of the block."""
        return self.conv1x1 + self.conv3x3 + self.conv5x5 + self.pool_reduce


BLOCKS = {
    "mixed3a": Block(64, 96, 128, 16, 32, 32),
    "mixed3b": Block(128, 128, 192, 32, 96, 64),
    "mixed4a": Block(192, 96, 204, 16, 48, 64),
    "mixed4b": Block(160, 112, 224, 24, 64, 64),
    "mixed4c": Block(128, 128, 256, 24, 64, 64),
    "mixed4d": Block(112, 144, 288, 32, 64, 64),
    "mixed4e": Block(256, 160, 320, 32, 128, 128),
    "mixed5a": Block(256, 160, 320, 48, 128, 128),
    "mixed5b": Block(384, 192, 384, 48, 128, 128),
}
BEFORE = {  # operations before a stage; pooling has stride 2
    "conv2d1": ("pool", "normalise"),
    "mixed3a": ("normalise", "pool"),
    "mixed4a": ("pool",),
    "mixed5a": ("pool",),
}
BRANCHES = ("1x1", "3x3", "5x5", "pool_reduce")
BOTTLENECKS = ("3x3_bottleneck", "5x5_bottleneck")
STEM = ("conv2d0", "conv2d1", "conv2d2")
STAGES = (*STEM, *BLOCKS, "softmax2")


@final
class Concatenate(nn.Module):
    """Concatenates the branches of a block over channels."""

    def forward(self, *branches: Tensor) -> Tensor:
        """[B, C1, H, W], [B, C2, H, W] ... -> [B, C1 + C2 + ..., H, W]."""
        return torch.cat(branches, dim=1)


@final
class InceptionV1(nn.Module):
    """InceptionV1 up to the stage `until`.

    Takes RGB values in 0..255 minus 117, [B, 3, H, W], and returns the output of the last stage.
    Every site is the output of one or more modules, see `inception_sites`. With `padded=False`
    the network computes only cells whose receptive field lies inside the image; an image of the
    field's size gives a single cell. Raises ConfigError for an unknown normalisation or stage.
    """

    def __init__(
        self, normalisation: str = "lucent", until: str = "softmax2", *, padded: bool = True
    ) -> None:
        super().__init__()
        self.padded = padded
        if normalisation not in NORMALISATIONS:
            raise ConfigError(
                f"normalisation must be one of {', '.join(NORMALISATIONS)}; got {normalisation!r}."
            )
        if until not in STAGES:
            raise ConfigError(f"until must be one of {', '.join(STAGES)}; got {until!r}.")
        self.normalisation = NORMALISATIONS[normalisation]
        self.stages = STAGES[: STAGES.index(until) + 1]
        self._add_conv("conv2d0", 3, 64, 7, stride=2)
        if "conv2d1" in self.stages:
            self._add_conv("conv2d1", 64, 64, 1)
        if "conv2d2" in self.stages:
            self._add_conv("conv2d2", 64, 192, 3)
        width = 192
        for name, block in BLOCKS.items():
            if name in self.stages:
                self._add_block(name, width, block)
            width = block.width
        if "softmax2" in self.stages:
            self.softmax2_pre_activation_matmul = nn.Linear(width, CLASSES)
            self.softmax2 = nn.Softmax(dim=1)

    def forward(
        self, images_BCHW: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, "b c h2 w2"] | Float[Tensor, "b c"]:
        # channels last: pooling is ten times faster on a CPU, and a cell's vector is contiguous
        x = images_BCHW.contiguous(memory_format=torch.channels_last)
        x = _same_pad(x, 7, 2) if self.padded else x
        for stage in self.stages:
            for step in BEFORE.get(stage, ()):
                x = self._pool(x) if step == "pool" else response_norm(x, self.normalisation)
            if stage in STEM:
                x = self._conv(stage, x)
            elif stage in BLOCKS:
                x = self._block(stage, x)
            else:
                x = self.softmax2(self.softmax2_pre_activation_matmul(x.mean(dim=(2, 3))))
        return x

    def _pool(self, x: Tensor) -> Tensor:
        return _max_pool(x) if self.padded else F.max_pool2d(x, 3, 2)

    def _conv(self, name: str, x: Tensor) -> Tensor:
        convolved: Tensor = getattr(self, name)(getattr(self, f"{name}_pre_relu_conv")(x))
        return convolved

    def _block(self, name: str, x: Tensor) -> Tensor:
        # 5x5 first, so that a pass that stops at the curve detectors' branch skips the others
        conv5x5 = self._conv(f"{name}_5x5", self._conv(f"{name}_5x5_bottleneck", x))
        conv1x1 = self._conv(f"{name}_1x1", self._inner(x, 2))
        inner = self._inner(x, 1)
        conv3x3 = self._conv(f"{name}_3x3", self._conv(f"{name}_3x3_bottleneck", inner))
        pooled = F.max_pool2d(inner, 3, stride=1, padding=1 if self.padded else 0)
        pool_reduce = self._conv(f"{name}_pool_reduce", pooled)
        joined: Tensor = getattr(self, name)(conv1x1, conv3x3, conv5x5, pool_reduce)
        return joined

    def _inner(self, x: Tensor, rim: int) -> Tensor:
        """Crop the input of a narrower branch so that its cells align with those of the unpadded
        5x5 convolution."""
        return x if self.padded else x[:, :, rim:-rim, rim:-rim]

    def _add_conv(self, name: str, ins: int, outs: int, kernel: int, stride: int = 1) -> None:
        same = self.padded and stride == 1  # asymmetric padding is done by `_same_pad`
        padding = kernel // 2 if same else 0
        conv = nn.Conv2d(ins, outs, kernel, stride=stride, padding=padding)
        self.add_module(f"{name}_pre_relu_conv", conv)
        self.add_module(name, nn.ReLU())

    def _add_block(self, name: str, ins: int, block: Block) -> None:
        self._add_conv(f"{name}_1x1", ins, block.conv1x1, 1)
        self._add_conv(f"{name}_3x3_bottleneck", ins, block.bottleneck3x3, 1)
        self._add_conv(f"{name}_3x3", block.bottleneck3x3, block.conv3x3, 3)
        self._add_conv(f"{name}_5x5_bottleneck", ins, block.bottleneck5x5, 1)
        self._add_conv(f"{name}_5x5", block.bottleneck5x5, block.conv5x5, 5)
        self._add_conv(f"{name}_pool_reduce", ins, block.pool_reduce, 1)
        self.add_module(name, Concatenate())


def unpadded(network: InceptionV1) -> InceptionV1:
    """The same network without padding, sharing its weights."""
    twin = InceptionV1(until=network.stages[-1], padded=False)
    twin.load_state_dict(network.state_dict(), assign=True)
    twin.normalisation = network.normalisation
    return twin.eval().requires_grad_(False)


def inception_sites(until: str = "softmax2") -> dict[str, tuple[str, ...]]:
    """The sites up to a stage: each maps to modules whose outputs are concatenated over channels.

    Names are the published ones (conv2d0, mixed3b, mixed3b_5x5, ...). Appending `_pre_relu` gives
    the activations before the ReLU.
    """
    sites: dict[str, tuple[str, ...]] = {}
    for stage in STAGES[: STAGES.index(until) + 1]:
        if stage in STEM:
            sites |= {stage: (stage,), f"{stage}_pre_relu": (f"{stage}_pre_relu_conv",)}
        elif stage in BLOCKS:
            for branch in (*BRANCHES, *BOTTLENECKS):
                name = f"{stage}_{branch}"
                sites |= {name: (name,), f"{name}_pre_relu": (f"{name}_pre_relu_conv",)}
            sites[stage] = (stage,)
            sites[f"{stage}_pre_relu"] = tuple(f"{stage}_{b}_pre_relu_conv" for b in BRANCHES)
        else:
            sites["softmax2_pre_activation"] = ("softmax2_pre_activation_matmul",)
            sites["softmax2"] = ("softmax2",)
    return sites


def preprocess(rgb_BCHW: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Convert RGB values in 0..1 to 0..255 minus 117."""
    return (rgb_BCHW * 255).sub_(MEAN)


def response_norm(x_BCHW: Float[Tensor, "b c h w"], n: Normalisation) -> Float[Tensor, "b c h w"]:
    """`torch.nn.functional.local_response_norm` of odd size, as a 1x1 convolution.

    The convolution with a banded matrix of ones is three times faster on a CPU than torch's
    three-dimensional pooling.
    """
    channel = torch.arange(x_BCHW.shape[1], device=x_BCHW.device)
    band_CC = (channel[:, None] - channel).abs() <= n.size // 2
    weight = band_CC.to(x_BCHW) * (n.alpha / n.size)
    scale = F.conv2d(x_BCHW.square(), weight[:, :, None, None], x_BCHW.new_full(channel.shape, n.k))
    return x_BCHW * scale.pow(-n.beta)


def _same_pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding: ceil(n / stride) outputs, with an odd pixel at the end."""
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def _max_pool(x: Tensor) -> Tensor:
    """3x3 max-pooling with stride 2 and SAME padding.

    SAME pads an even size by 0 before and 1 after, and an odd size by 1 on both sides. `padding`
    provides the pixel before and `ceil_mode` the one after, as -inf and without a copy.
    """
    return F.max_pool2d(x, 3, 2, padding=(x.shape[2] % 2, x.shape[3] % 2), ceil_mode=True)
