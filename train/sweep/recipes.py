"""Complete grids, one a recipe: `tendril train RECIPE --field value`."""

from collections.abc import Callable

from ..config import ONLY_FOR, TrainConfig
from .config import SweepConfig


def sweep() -> SweepConfig:
    """Many dictionaries in one pass: a grid of objectives, sizes, sparsities, seeds.

    Every run of the grid lands in runs/ as if trained alone, and a table
    and a plot of FVU against L0 beside them. What is there already is
    not trained again; a sweep that was stopped goes on. Memory: eight
    times the weights of all runs together. Time: a little less than the
    runs one after the other take; --dry-run tells it.
    """
    return SweepConfig()


def front() -> SweepConfig:
    """Which dictionary: four objectives at four sparsities each, beside PCA and the units.

    24 dictionaries of eight times the width, 1.2 M vectors each (three
    seeds at the third sparsity, one elsewhere), and 8 baselines; a table
    and a plot of FVU against L0. On mixed3b_5x5 (width 96): 60 MB of
    disk, and about 10 minutes of a core, shared by all there are. More
    --steps are better ones; --dry-run tells time and disk.
    """
    return SweepConfig(
        base=_base(steps=600),
        objectives=("topk", "batch_topk", "relu_l1", "jumprelu", "pca", "neurons"),
        sparsities=("k=4,8,16,32", "l1=0.5,1,2,4", "target_l0=4,8,16,32"),
        seeds=(0, 1, 2),
        spread="middle",
    )


def front_all() -> SweepConfig:
    """The same of every objective and baseline: six sparsities, three seeds at each.

    126 dictionaries, 8 M vectors each, and 48 baselines, for one --site.
    On mixed3b_5x5 (width 96) about 6 hours of a core and .3 GB of disk;
    on mixed3b (width 480) days on a CPU, 7 GB of disk and as much
    memory. --objectives does a part, and the whole command afterwards
    only makes the table of all. --dry-run tells time and disk.
    """
    return SweepConfig(
        base=_base(steps=4000),
        objectives=tuple(o for o in ONLY_FOR if o != "orbit"),  # which wants a store of orbits
        sparsities=("k=2,4,8,16,32,64", "l1=0.25,0.5,1,2,4,8", "target_l0=2,4,8,16,32,64"),
        seeds=(0, 1, 2),
    )


def _base(steps: int) -> TrainConfig:
    """Short runs want a high learning rate: after 500 such steps on mixed3b_5x5 TopK at k 8
    leaves .065 unexplained (.164 at 1e-3), which is where eight times as many end."""
    return TrainConfig(steps=steps, batch_size=2048, lr=3e-3, l0=1.0)


SWEEPS: dict[str, Callable[[], SweepConfig]] = {
    make.__name__: make for make in (sweep, front, front_all)
}
