"""Recipes: complete configs, each field of which can be overridden by its flag."""

from .config import HarvestConfig


def inceptionv1() -> HarvestConfig:
    """InceptionV1's mixed3b and its 5x5 branch over your images (--inputs, --weights).

    10 positions an image, drawn in proportion to the norm of mixed3b_5x5's activation.
    Over a hundred images a second on two CPU cores; 4 kB of disk an image; 1 GB of memory.
    """
    return HarvestConfig(subject="inceptionv1", sites=("mixed3b_5x5", "mixed3b"))


def demo() -> HarvestConfig:
    """The embedded subject over dead leaves: needs no file and no network.

    Its sixteen curve detectors are known, so what is found can be checked. Ten seconds
    on two CPU cores, six megabytes of disk.
    """
    return HarvestConfig(
        name="demo",
        subject="handmade",
        inputs="dead-leaves",
        sites=("mixed3b_5x5", "mixed3b"),
        limit=800,
        per_input=40,
    )


RECIPES = {"inceptionv1": inceptionv1, "demo": demo}
