"""Complete configs, one a recipe: `tendril train RECIPE --field value`."""

import dataclasses
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


def batch_topk() -> TrainConfig:
    """BatchTopK: k latents a vector on average, more where there is more to say.

    As topk, but the k largest are taken over the whole batch; used on
    single vectors a threshold decides, kept with the dictionary. Time
    and memory as topk and half as much again; disk as topk.
    """
    return TrainConfig(objective="batch_topk")


def matryoshka() -> TrainConfig:
    """Matryoshka BatchTopK: nested dictionaries, the first ones coarse.

    One code whose prefixes (1/16, 1/8, 1/4, 1/2, all) each reconstruct;
    a little worse in FVU than batch_topk, and broad features are not
    split up among narrow ones. Time up to twice that of topk.
    """
    return TrainConfig(objective="matryoshka")


def tied() -> TrainConfig:
    """Tied ReLU autoencoder with an L1 penalty: one matrix, no decoder bias.

    The form of Cunningham et al. 2023, for comparison; alpha of their
    code is --l1 over the width. Leaves more unexplained than relu_l1
    where vectors lie far from the origin. Half the memory of topk.
    """
    return TrainConfig(objective="tied")


def gated() -> TrainConfig:
    """Gated autoencoder: a gate says which latents are on, magnitudes are not shrunk.

    --l1 moves along the front. Stored as a JumpReLU dictionary, which it
    equals. Time and memory half as much again as relu_l1.
    """
    return TrainConfig(objective="gated")


def jumprelu() -> TrainConfig:
    """JumpReLU: a threshold a latent, trained on the number of latents that are on.

    --l0 moves along the front, or --target-l0 says how many are to be
    on (then --l0 1 is a fair weight). Time and memory as relu_l1.
    """
    return TrainConfig(objective="jumprelu")


def crosscoder() -> TrainConfig:
    """BatchTopK crosscoder: one dictionary over several --sites.

    Latents are ranked by their value times the sum of the norms of
    their directions. --sources says what the encoder sees: all sites,
    the first, or one at random. Time and memory as batch_topk on a site
    as wide as all together.
    """
    return TrainConfig(name="crosscoder", objective="batch_topk")


def crosscoder_l1() -> TrainConfig:
    """ReLU crosscoder with an L1 penalty on the sum of norms, over several --sites.

    The form of October 2024. Time and memory as relu_l1 on a site as
    wide as all together.
    """
    return TrainConfig(name="crosscoder-l1", objective="relu_l1")


def group_crosscoder() -> TrainConfig:
    """BatchTopK crosscoder over the elements of a store of orbits.

    A latent has a direction for every element, its transform blocks, and
    none is tied to another. --sources says what the encoder sees: all
    elements, the identity, or one at random. Expect on 20,000 orbits of
    mixed3b_5x5 under D16: FVU .31 at --k 16, a third of 384 latents dead.
    A minute on two cores, 1 GB of memory, 10 MB of disk.
    """
    return TrainConfig(
        name="group-crosscoder",
        objective="batch_topk",
        latents=384,
        k=16,
        bias="mean",
        steps=400,
        batch_size=512,
        lr=2e-3,
        dead_after=20_000,
        held_out=0.1,
    )


def group_crosscoder_l1() -> TrainConfig:
    """ReLU crosscoder with an L1 penalty over the elements of a store of orbits.

    The penalty is on the sum of the blocks' norms, or on their norm side
    by side (--ranking norm_of_sums), which starts at --decoder-norm. Time
    and disk as group_crosscoder.
    """
    return TrainConfig(
        name="group-crosscoder-l1",
        objective="relu_l1",
        latents=384,
        batch_size=512,
        held_out=0.1,
    )


def orbit_crosscoder() -> TrainConfig:
    """Group crosscoder whose latents come in families, tied by the group.

    Of each family one copy an element of the group; the best of them may
    be on, in k families. Expect on 20,000 orbits of mixed3b_5x5 under D16:
    FVU .26 held out and .25 in training, no family dead. A minute on two
    cores, 1 GB of memory, 1 MB of disk. --control trains what it is to be
    held against.
    """
    return TrainConfig(
        name="orbit-crosscoder",
        objective="orbit",
        families=32,
        k=16,
        bias="mean",
        steps=400,
        batch_size=512,
        lr=3e-3,
        dead_after=20_000,
        held_out=0.1,
        checkpoint_every=100,
    )


def pca() -> TrainConfig:
    """Baseline: the k largest of the principal components of each vector. Seconds."""
    return TrainConfig(objective="pca")


def ica() -> TrainConfig:
    """Baseline: the k largest of independent components (FastICA). Width 96: seconds;
    width 480: minutes."""
    return TrainConfig(objective="ica")


def random() -> TrainConfig:
    """Baseline: the k best fitting of random directions, read with themselves. Seconds."""
    return TrainConfig(objective="random")


def neurons() -> TrainConfig:
    """Baseline: the k largest units of each vector, the rest taken as zero. Seconds."""
    return TrainConfig(objective="neurons")


def demo() -> TrainConfig:
    """The dictionary of `make demo`: TopK on mixed3b_5x5 of the embedded subject.

    Single channels show ten orientations of curves; its latents all 24, each with a cosine of
    1.0 to what was planted. FVU .002. Twenty seconds on one core; two megabytes of disk.
    """
    return TrainConfig(
        name="demo",
        store="demo",
        site="mixed3b_5x5",
        objective="topk",
        latents=192,
        k=6,
        lr=2e-2,
        steps=2000,
        batch_size=512,
    )


def orbits_demo() -> TrainConfig:
    """The group crosscoder of `make demo`: six families tied by D_24, four rounds of one.

    Curves, lines, corners and hooks come back as families, each with what fixes it, at a
    cosine of .98; the two circles, on at one anchor in 150 and then mostly both, do not. Half
    a minute on two cores.
    """
    return dataclasses.replace(
        orbit_crosscoder(),
        name="orbits-demo",
        store="orbits-demo",
        site="mixed3b_5x5",
        families=6,  # as were planted: spare ones blend two of these, in one seed of four
        k=4,
        rounds=4,
        steps=600,
        batch_size=128,
        lr=5e-3,
    )


def control_demo() -> TrainConfig:
    """Its control: the reflected half of each orbit is another anchor's, so no family should
    have a reflection."""
    return dataclasses.replace(
        orbits_demo(), name="control-demo", control="reflected-half-from-another-anchor"
    )


def language_demo() -> TrainConfig:
    """The dictionary of `make demo-language`: TopK on the fourth block of a sentence encoder.
    Half a minute on two cores; twenty megabytes of disk."""
    return TrainConfig(
        name="language-demo",
        store="language-demo",
        objective="topk",
        latents=1536,
        k=32,
        steps=600,
        batch_size=1024,
        lr=2e-3,
    )


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    make.__name__: make
    for make in (
        *(topk, batch_topk, matryoshka, relu_l1, tied, gated, jumprelu),
        *(crosscoder, crosscoder_l1, group_crosscoder, group_crosscoder_l1, orbit_crosscoder),
        *(pca, ica, random, neurons),
        *(demo, orbits_demo, control_demo, language_demo),
    )
}
