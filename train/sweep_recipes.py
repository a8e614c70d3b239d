"""Complete grids, one a recipe: `python -m train RECIPE --field value`."""

from collections.abc import Callable

from .config import ONLY_FOR, TrainConfig
from .sweep_config import SweepConfig


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
    """The four usual objectives at four sparsities each, and PCA and the units themselves.

    24 dictionaries and 8 baselines: three seeds at the middle sparsity, one elsewhere, 1.2 M
    vectors each. On mixed3b_5x5 of photographs (width 96, 768 latents): MINUTES.
    """
    return SweepConfig(
        base=_base(steps=600),
        objectives=("topk", "batch_topk", "relu_l1", "jumprelu", "pca", "neurons"),
        sparsities=("k=4,8,16,32", "l1=0.5,1,2,4", "target_l0=4,8,16,32"),
        seeds=(0, 1, 2),
        spread="middle",
    )


def front_all() -> SweepConfig:
    """Every objective and baseline at six sparsities, three seeds each: a day's work."""
    return SweepConfig(
        base=_base(steps=4000),
        objectives=tuple(ONLY_FOR),
        sparsities=("k=2,4,8,16,32,64", "l1=0.25,0.5,1,2,4,8", "target_l0=2,4,8,16,32,64"),
        seeds=(0, 1, 2),
    )


def _base(steps: int) -> TrainConfig:
    """A high learning rate, for short runs: at 1e-3 they are far from done."""
    return TrainConfig(steps=steps, batch_size=2048, lr=3e-3, l0=1.0)


SWEEPS: dict[str, Callable[[], SweepConfig]] = {
    make.__name__: make for make in (sweep, front, front_all)
}
