"""Complete configs, one a recipe: `python -m train RECIPE --field value`."""

from collections.abc import Callable

from .config import TrainConfig


def topk() -> TrainConfig:
    """TopK autoencoder with AuxK: k latents a vector, hardly any dead.

    Expect on mixed3b_5x5 of photographs (width 96, 768 latents):
    FVU .007 at --k 16 and .064 at --k 8, under 1 % dead.
    Two to four minutes on one core, .5 GB of memory, 3 MB of disk.
    On mixed3b (width 480, 3840 latents): a quarter of an hour,
    1 GB of memory, 60 MB of disk; --k 32 suits it.
    """
    return TrainConfig(objective="topk")


def relu_l1() -> TrainConfig:
    """ReLU autoencoder with an L1 penalty, in the form of April 2024.

    Expect on mixed3b_5x5 of photographs (width 96, 768 latents):
    FVU .05 with 43 latents on at --l1 1, .13 with 30 at --l1 2,
    none dead; TopK leaves less unexplained with fewer.
    Time, memory and disk as topk.
    """
    return TrainConfig(objective="relu_l1")


def demo() -> TrainConfig:
    """The dictionary of `make demo`: TopK on mixed3b_5x5 of the embedded subject.

    Expect just sixteen curve latents, each within a degree or two of a planted detector: a
    high learning rate kills the latents that would tile the circle anew. FVU under .001, a
    third of the latents dead. Ten seconds on one core; two megabytes of disk.
    """
    return TrainConfig(
        name="demo",
        store="demo",
        site="mixed3b_5x5",
        objective="topk",
        latents=128,
        k=8,
        lr=2e-2,
        steps=2000,
        batch_size=512,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {"topk": topk, "relu_l1": relu_l1, "demo": demo}
