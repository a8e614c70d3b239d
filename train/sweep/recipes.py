"""Complete grids, one for each recipe: `tendril train RECIPE --field value`."""

from collections.abc import Callable

from ..config import OBJECTIVES, TrainConfig
from .config import SweepConfig


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
    """Compare four objectives at four sparsities each, and PCA and the units.

    24 dictionaries of eight times the width, 1.2 M vectors each (three seeds
    at the third sparsity, one at the others), and 8 baselines; a table and a
    plot of FVU against L0. On mixed3b_5x5 (width 96): 60 MB of disk and about
    10 core-minutes. More --steps train better dictionaries; --dry-run
    estimates time and disk.
    """
    return SweepConfig(
        base=_base(steps=600),
        objectives=("topk", "batch_topk", "relu_l1", "jumprelu", "pca", "neurons"),
        sparsities=("k=4,8,16,32", "l1=0.5,1,2,4", "target_l0=4,8,16,32"),
        seeds=(0, 1, 2),
        spread="middle",
    )


def front_all() -> SweepConfig:
    """Compare all objectives and baselines: six sparsities, three seeds each.

    126 dictionaries, 8 M vectors each, and 48 baselines, for one --site. On
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


def _base(steps: int) -> TrainConfig:
    """Short runs need a high learning rate: after 500 steps at 3e-3 on mixed3b_5x5, TopK at k 8 has
    FVU 0.065 (0.164 at 1e-3), the value that it reaches after eight times as many."""
    return TrainConfig(steps=steps, batch_size=2048, lr=3e-3, l0=1.0)


SWEEPS: dict[str, Callable[[], SweepConfig]] = {
    make.__name__: make for make in (sweep, front, front_all)
}
