"""Complete configs, one for each recipe: `tendril train RECIPE --field value`."""

import dataclasses
from collections.abc import Callable

from .config import TrainConfig


def topk() -> TrainConfig:
    """TopK autoencoder with AuxK: k active latents for each vector, few dead.

    Expect on mixed3b_5x5 of photographs (width 96, 768 latents):
    FVU 0.007 at --k 16 and 0.064 at --k 8, under 1 % dead.
    Two to four minutes on one core, 0.5 GB of memory, 3 MB of disk.
    On mixed3b (width 480, 3840 latents), use --k 32: 15 minutes,
    1 GB of memory, 60 MB of disk.
    """
    return TrainConfig(objective="topk")


def relu_l1() -> TrainConfig:
    """ReLU autoencoder with an L1 penalty, in the form of April 2024.

    Expect on mixed3b_5x5 of photographs (width 96, 768 latents):
    FVU 0.05 with 43 active latents at --l1 1, 0.13 with 30 at --l1 2,
    none dead; TopK has a lower FVU with fewer active latents. Time,
    memory and disk as for topk.
    """
    return TrainConfig(objective="relu_l1")


def batch_topk() -> TrainConfig:
    """BatchTopK: k active latents on average, more for vectors that need more.

    As topk, but the k largest are taken over the whole batch. For single
    vectors a threshold decides, which is stored with the dictionary.
    Time and memory 1.5 times those of topk; disk as for topk.
    """
    return TrainConfig(objective="batch_topk")


def matryoshka() -> TrainConfig:
    """Matryoshka BatchTopK: nested dictionaries, from coarse to fine.

    One code whose prefixes (1/16, 1/8, 1/4, 1/2, all) each reconstruct.
    FVU is a little worse than that of batch_topk, and broad features are
    not split into narrow ones. Time up to twice that of topk.
    """
    return TrainConfig(objective="matryoshka")


def tied() -> TrainConfig:
    """Tied ReLU autoencoder with an L1 penalty: one matrix, no decoder bias.

    The form of Cunningham et al. 2023, for comparison; alpha of their
    code is --l1 over the width. FVU is higher than that of relu_l1 if
    vectors lie far from the origin. Half the memory of topk.
    """
    return TrainConfig(objective="tied")


def gated() -> TrainConfig:
    """Gated autoencoder: a gate chooses latents, magnitudes are not shrunk.

    --l1 trades FVU for sparsity. Stored as the equivalent JumpReLU
    dictionary. Time and memory 1.5 times those of relu_l1.
    """
    return TrainConfig(objective="gated")


def jumprelu() -> TrainConfig:
    """JumpReLU: a threshold for each latent, trained on the number of active latents.

    --l0 trades FVU for sparsity; or --target-l0 sets the number of active
    latents (then --l0 1 is a good weight). Time and memory as for relu_l1.
    """
    return TrainConfig(objective="jumprelu")


def crosscoder() -> TrainConfig:
    """BatchTopK crosscoder: one dictionary of several --sites.

    Latents are ranked by their value times the sum of the norms of their
    directions. --sources sets what the encoder reads: all sites, the
    first, or one at random. Time and memory as for batch_topk on a site
    as wide as all together.
    """
    return TrainConfig(name="crosscoder", objective="batch_topk")


def crosscoder_l1() -> TrainConfig:
    """ReLU crosscoder of several --sites, with an L1 penalty on the sum of norms.

    The form of October 2024. Time and memory as for relu_l1 on a site as
    wide as all together.
    """
    return TrainConfig(name="crosscoder-l1", objective="relu_l1")


def group_crosscoder() -> TrainConfig:
    """BatchTopK crosscoder of the elements of a store of orbits.

    A latent has a direction for every element, its transform blocks,
    none of them tied to another. --sources sets what the encoder reads:
    all elements, the identity, or one at random. Expect on 20,000 orbits
    of mixed3b_5x5 under D16: FVU 0.28 held out and 0.25 in training at
    --k 16, 3 to 7 % of 384 latents dead. Three minutes on two cores, 1 GB
    of memory, 10 MB of disk.
    """
    return TrainConfig(
        name="group-crosscoder",
        objective="batch_topk",
        latents=384,
        k=16,
        bias="mean",
        steps=1200,
        batch_size=512,
        lr=1e-3,
        dead_after=20_000,
        held_out=0.1,
    )


def group_crosscoder_l1() -> TrainConfig:
    """ReLU crosscoder of the elements of a store of orbits, with an L1 penalty.

    The penalty is on the sum of the blocks' norms, or on the norm of all
    blocks together (--ranking norm_of_sums), which starts at
    --decoder-norm. Time and disk as for group_crosscoder.
    """
    return TrainConfig(
        name="group-crosscoder-l1",
        objective="relu_l1",
        latents=384,
        batch_size=512,
        held_out=0.1,
    )


def equivariant_crosscoder() -> TrainConfig:
    """Equivariant group crosscoder: latents in families, tied by the group.

    A family has one copy for each element of the group; the best copy of
    each of k families is active. Expect on 20,000 orbits of mixed3b_5x5
    under D16: FVU 0.26 held out and 0.25 in training, no family dead. A
    minute on two cores, 1 GB of memory, 1 MB of disk. --control trains
    its controls.
    """
    return TrainConfig(
        name="equivariant-crosscoder",
        objective="equivariant",
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
    """Baseline: the k largest principal components of each vector.

    Seconds.
    """
    return TrainConfig(objective="pca")


def ica() -> TrainConfig:
    """Baseline: the k largest independent components (FastICA) of each vector.

    Width 96: seconds; width 480: minutes.
    """
    return TrainConfig(objective="ica")


def nmf() -> TrainConfig:
    """Baseline: the k largest components of non-negative matrix factorisation.

    For sites without negative values, such as those after a ReLU. As many
    components as the site has units. Width 96: half a minute.
    """
    return TrainConfig(objective="nmf")


def random() -> TrainConfig:
    """Baseline: the k largest of random directions, which encode and decode.

    Seconds.
    """
    return TrainConfig(objective="random")


def neurons() -> TrainConfig:
    """Baseline: the k largest units of each vector, the rest set to zero.

    Seconds.
    """
    return TrainConfig(objective="neurons")


def demo() -> TrainConfig:
    """The dictionary of `make demo`: TopK on mixed3b_5x5 of the embedded subject.

    The units show ten orientations of curves, its latents all 24, each
    with a cosine of 1.0 to what was planted. FVU 0.002. Twenty seconds on
    one core; 2 MB of disk.
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
    """The group crosscoder of `make demo`: six families tied by D24, four rounds of one.

    Planted curves, lines, corners and hooks are found as families, each
    with its stabiliser, at a cosine of 0.98. The two circles, active at
    one anchor in 150 and mostly together, are not. Half a minute on two
    cores.
    """
    return dataclasses.replace(
        equivariant_crosscoder(),
        name="orbits-demo",
        store="orbits-demo",
        site="mixed3b_5x5",
        families=6,  # as many as were planted: spare ones blend two of them in one seed of four
        k=4,
        rounds=4,
        steps=600,
        batch_size=128,
        lr=5e-3,
    )


def control_demo() -> TrainConfig:
    """The control of orbits_demo: no family should have a reflection.

    The reflected half of each orbit is that of another anchor. Half a
    minute on two cores.
    """
    return dataclasses.replace(
        orbits_demo(), name="control-demo", control="reflected-half-from-another-anchor"
    )


def language_demo() -> TrainConfig:
    """The dictionary of `make demo-language`: TopK on a block of a sentence encoder.

    Half a minute on two cores; 20 MB of disk.
    """
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
        *(crosscoder, crosscoder_l1, group_crosscoder, group_crosscoder_l1),
        *(equivariant_crosscoder, pca, ica, nmf, random, neurons),
        *(demo, orbits_demo, control_demo, language_demo),
    )
}
