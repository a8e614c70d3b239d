"""Recipes: complete configs, each field of which can be overridden by its flag."""

from .config import HarvestConfig


def inceptionv1() -> HarvestConfig:
    """InceptionV1's mixed3b and its 5x5 branch over your images (--inputs, --weights).

    10 positions an image, drawn in proportion to the norm of mixed3b_5x5's activation.
    Over a hundred images a second on two CPU cores; 4 kB of disk an image; 1 GB of memory.
    """
    return HarvestConfig(subject="inceptionv1", sites=("mixed3b_5x5", "mixed3b"))


def orbits() -> HarvestConfig:
    """Patches of your images through all turns and reflections of a dihedral group.

    25 positions an image, each the middle of a patch as large as its receptive field, turned
    by multiples of 360 / --rotations degrees and reflected: 64 elements, or 32 with
    --rotations 16. Rows are [G, D], for group crosscoders. 800 photographs with 16 rotations
    are 20,000 anchors: 20 minutes on two CPU cores, .3 GB of disk, 1 GB of memory.
    """
    return HarvestConfig(
        subject="inceptionv1",
        sites=("mixed3b_5x5", "mixed3b"),
        rotations=32,
        per_input=25,
        batch_size=2,
    )


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


RECIPES = {"inceptionv1": inceptionv1, "orbits": orbits, "demo": demo}
