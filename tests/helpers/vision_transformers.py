"""Tiny vision networks of transformers, torchvision and timm, and their own hidden states."""

from collections.abc import Callable
from dataclasses import dataclass

from tendril.data import _torchvision  # noqa: F401  before transformers asks for torchvision

# isort: split
import torch
import torchvision
import transformers
from torch import Tensor, nn

SIZE, PATCH, WIDTH = 32, 8, 32


@dataclass(frozen=True)
class Case:
    """A network, a site of it, and what the site's rows must be.

    `own` gives the activations by the network's own means (`output_hidden_states`) or by a hook,
    as [B, L, C] or [B, C, H, W] or [B, H, W, C]; `prefix` counts the tokens before the patches, and
    `grid` are the rows and columns of its map.
    """

    make: Callable[[], nn.Module]
    site: str
    own: Callable[[nn.Module, Tensor], Tensor]
    grid: tuple[int, int]
    prefix: int = 0
    channels_last: bool = False


def states(layer: int) -> Callable[[nn.Module, Tensor], Tensor]:
    """Entry `layer` of a transformers network's hidden states."""

    def own(network: nn.Module, x: Tensor) -> Tensor:
        found = network(x, output_hidden_states=True).hidden_states[layer]
        assert isinstance(found, Tensor)
        return found

    return own


def hooked(site: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """The output of a module, by a hook written by hand."""

    def own(network: nn.Module, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = network.get_submodule(site).register_forward_hook(
            lambda _module, _inputs, output: seen.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
        network(x)
        handle.remove()
        return seen[0]

    return own


VIT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "patch_size": PATCH,
}


def of_transformers(name: str, **fields: object) -> Callable[[], nn.Module]:
    """A tiny network of transformers with random weights; without fields, those of a ViT."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(image_size=SIZE, **(fields or VIT))
        network: nn.Module = getattr(transformers, f"{name}Model")(config)
        for parameter in network.parameters():  # tokens and positions may start as zeros
            parameter.data += 0.02 * torch.randn(parameter.shape)
        return network.eval()

    return make


def of_torchvision(name: str, **fields: object) -> Callable[[], nn.Module]:
    """A network of torchvision with random weights."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        network: nn.Module = getattr(torchvision.models, name)(**fields)
        return network.eval()

    return make


def vit() -> nn.Module:
    """A small VisionTransformer of torchvision."""
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(
        SIZE, PATCH, num_layers=2, num_heads=2, hidden_dim=WIDTH, mlp_dim=64, num_classes=10
    ).eval()


def swin() -> nn.Module:
    """A small SwinTransformer of torchvision."""
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4]).eval()


def timm_vit() -> nn.Module:
    """A small vision transformer of timm with a class token and four registers."""
    import timm

    torch.manual_seed(0)
    network: nn.Module = timm.models.vision_transformer.VisionTransformer(
        img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=2, num_heads=2, reg_tokens=4
    )
    return network.eval()


SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 4}
RESNET = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]}
CASES = {
    "vit": Case(of_transformers("ViT"), "layers.1", states(2), (4, 4), 1),
    "vit_patch_embedding": Case(
        of_transformers("ViT"),
        "embeddings.patch_embeddings",
        hooked("embeddings.patch_embeddings"),
        (4, 4),
    ),
    "deit": Case(of_transformers("DeiT"), "layers.0", states(1), (4, 4), 2),
    "clip_vision": Case(of_transformers("CLIPVision"), "encoder.layers.0", states(1), (4, 4), 1),
    "dinov2": Case(of_transformers("Dinov2"), "encoder.layer.1", states(2), (4, 4), 1),
    "dinov2_with_registers": Case(
        of_transformers("Dinov2WithRegisters", num_register_tokens=4, **VIT),
        "encoder.layer.0",
        states(1),
        (4, 4),
        5,
    ),
    "siglip_vision": Case(of_transformers("SiglipVision"), "encoder.layers.1", states(2), (4, 4)),
    "swin": Case(of_transformers("Swin", **SWIN), "encoder.layers.0", states(1), (4, 4)),
    "convnext": Case(
        of_transformers("ConvNext", **CONVNEXT), "encoder.stages.1", states(2), (4, 4)
    ),
    "resnet": Case(of_transformers("ResNet", **RESNET), "encoder.stages.1", states(2), (4, 4)),
    "torchvision_vit": Case(
        vit, "encoder.layers.encoder_layer_1", hooked("encoder.layers.encoder_layer_1"), (4, 4), 1
    ),
    "torchvision_swin": Case(swin, "features.1", hooked("features.1"), (8, 8), channels_last=True),
    "torchvision_resnet": Case(of_torchvision("resnet18"), "layer2", hooked("layer2"), (4, 4)),
    "torchvision_efficientnet": Case(
        of_torchvision("efficientnet_b0"), "features.3", hooked("features.3"), (4, 4)
    ),
    "timm_vit_with_registers": Case(timm_vit, "blocks.1", hooked("blocks.1"), (4, 4), 5),
}


class Sequences(nn.Module):
    """A class token and patches, whose blocks take sequences with the batch second (as the first
    CLIP did) or the channels before the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.first = nn.TransformerEncoderLayer(WIDTH, 2, 64, dropout=0.0)
        self.second = nn.Conv1d(WIDTH, WIDTH, 1)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens_BLC = self.conv1(x).flatten(2).mT
        first = self.class_embedding.expand(len(x), 1, -1)
        acts_LBC = self.first(torch.cat([first, tokens_BLC], 1).transpose(0, 1))
        acts_BCL = self.second(acts_LBC.permute(1, 2, 0))
        return self.head(acts_BCL[:, :, 0] + acts_BCL[:, :, 1:].mean(2))


def sequences() -> nn.Module:
    """The network with random weights."""
    torch.manual_seed(0)
    return Sequences().eval()
