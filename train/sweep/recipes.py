"""Complete grids, one for each recipe: `tendril train RECIPE --field value`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..config import OBJECTIVES, TrainConfig
from ..groups import FROZEN
from .config import SweepConfig

TOY_SIZES = (1, 2, 4, 6, 8, 12, 24, 64, 256)


def sweep() -> SweepConfig:
    """Train a grid of objectives, sizes, sparsities and seeds in one pass.

    Each run of the grid is written to runs/ as if it had been trained alone,
    with a table and a plot of FVU against L0. Runs that exist are not
    trained again, and a stopped sweep continues. Memory: eight times the
    weights of all runs together. Time: a little less than the runs take one
    after the other; --dry-run estimates it.
    """
    return SweepConfig()


def front() -> SweepConfig:
    """Compare four objectives at four sparsities each with dictionaries that are not trained.

    TopK, BatchTopK, ReLU-L1 and JumpReLU; TopK with a decoder or an encoder
    that stays random, and a decoder that stays near its random start; random
    directions, PCA, NMF and the units. 42 dictionaries of eight times the
    width, 1.2 M vectors each (three seeds at the third sparsity, one at the
    others), and 20 baselines; a table and a plot of FVU against L0. On
    mixed3b_5x5 (width 96): 0.1 GB of disk and about 20 core-minutes. More
    --steps train better dictionaries; --dry-run estimates time and disk.
    """
    return SweepConfig(
        base=_base(steps=600),
        objectives=(
            *("topk", "batch_topk", "relu_l1", "jumprelu"),
            *(f"topk:{control}" for control in FROZEN),
            *("random", "pca", "nmf", "neurons"),
        ),
        sparsities=("k=4,8,16,32", "l1=0.5,1,2,4", "target_l0=4,8,16,32"),
        seeds=(0, 1, 2),
        spread="middle",
    )


def front_all() -> SweepConfig:
    """Compare all objectives and baselines: six sparsities, three seeds each.

    126 dictionaries, 8 M vectors each, and 66 baselines, for one --site. On
    mixed3b_5x5 (width 96) about 6 core-hours and 0.3 GB of disk; on mixed3b
    (width 480) days on a CPU, 7 GB of disk and as much memory. --objectives
    trains a part; the whole command then only makes the table of all.
    --dry-run estimates time and disk.
    """
    return SweepConfig(
        base=_base(steps=4000),
        objectives=tuple(o for o in OBJECTIVES if o != "equivariant"),  # it needs a store of orbits
        sparsities=("k=2,4,8,16,32,64", "l1=0.25,0.5,1,2,4,8", "target_l0=2,4,8,16,32,64"),
        seeds=(0, 1, 2),
    )


def scaling() -> SweepConfig:
    """TopK from 96 to 12,288 latents: does a wider dictionary find new features?

    `tendril study scaling --run` shows what becomes of its latents, and with --curves, for a vision
    network, whether the curve family absorbs them. All sizes see as many vectors. 96 units: two to
    five minutes on one CPU core, three quarters of it for the largest; 256 units three times as
    long.
    """
    sizes = tuple(96 * 2**i for i in range(8))
    base = replace(_base(steps=400), k=16)
    return SweepConfig(("topk",), sizes, ("k=16",), base=base)


def toy_relu_l1() -> SweepConfig:
    """Dictionaries of one manifold, from 1 to 256 latents: ReLU with an L1 penalty.

    For stores of `tendril harvest toy_circle`, toy_sphere and toy_shell. At lambda 1 the penalty is
    about half of the loss, so that latents which tile the manifold pay: `tendril study scaling
    --run` shows how the loss falls. Biases and encoder rows must grow with the number of latents,
    hence the high learning rate. 15 s on one CPU core; more --sizes need more --steps.
    """
    base = _toy("toy-relu-l1", lr=3e-2, decoder_norm=0.05)
    return SweepConfig(("relu_l1",), TOY_SIZES, ("l1=1",), base=base)


def toy_jumprelu() -> SweepConfig:
    """Dictionaries of one manifold, from 1 to 256 latents: JumpReLU.

    As toy_relu_l1, with a penalty of 0.3 for each active latent. Thresholds start where one latent
    is active, and the bandwidth is small, since neighbouring latents differ by little: with the
    usual ones nearly all latents die. There is no b_dec. 25 s on one CPU core.
    """
    base = _toy("toy-jumprelu", lr=1e-3, batch_size=256, lr_decay=0.8)
    base = replace(base, bias="none", bandwidth=0.05, start_l0=1.0)
    return SweepConfig(("jumprelu",), TOY_SIZES, ("l0=0.3",), base=base)


def toy_topk() -> SweepConfig:
    """Dictionaries of one manifold, from 1 to 256 latents: TopK with one active latent.

    Without b_dec, whose use would make a code of one latent better than its theory: on a circle,
    m latents leave 1/2 - sin(2 pi/m) / (4 pi/m) of the variance. Dead latents are initialised
    again. 15 s on one CPU core.
    """
    base = _toy("toy-topk", lr=1e-2, batch_size=256, bias="none")
    base = replace(base, dead_after=3000, resample_every=50)
    return SweepConfig(("topk",), TOY_SIZES, ("k=1",), base=base)


def _toy(name: str, **fields: Any) -> TrainConfig:
    common = TrainConfig(
        name=name,
        steps=1000,
        batch_size=128,
        lr_decay=1.0,
        threads=1,
        log_every=100,
        checkpoint_every=500,
        eval_rows=8192,
    )
    return replace(common, **fields)


def _base(steps: int) -> TrainConfig:
    """Short runs need a high learning rate: after 500 steps at 3e-3 on mixed3b_5x5, TopK at k 8 has
    FVU 0.065 (0.164 at 1e-3), the value that it reaches after eight times as many."""
    return TrainConfig(steps=steps, batch_size=2048, lr=3e-3, l0=1.0)


SWEEPS: dict[str, Callable[[], SweepConfig]] = {
    make.__name__: make
    for make in (sweep, front, front_all, scaling, toy_relu_l1, toy_jumprelu, toy_topk)
}
