"""Complete configs, one a recipe: `python -m train RECIPE --field value`."""

from collections.abc import Callable

from .config import TrainConfig


def topk() -> TrainConfig:
    """TopK autoencoder with AuxK: k latents a vector, and hardly any of them dead.

    EXPECT
    """
    return TrainConfig(objective="topk")


def relu_l1() -> TrainConfig:
    """ReLU autoencoder with an L1 penalty, in the form of April 2024.

    EXPECT
    """
    return TrainConfig(objective="relu_l1")


RECIPES: dict[str, Callable[[], TrainConfig]] = {"topk": topk, "relu_l1": relu_l1}
