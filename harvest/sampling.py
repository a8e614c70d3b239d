"""Draw the positions to keep of an input: a pure function of seed, input and norms."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Int64

from tendril.data import order

TINY = 1e-30  # replaces a norm of zero: such cells come last, in random order


def draw_uniform(cells: int, count: int, seed: int, index: int) -> Int64[np.ndarray, " count"]:
    """`count` distinct cells of an input's map, drawn uniformly, in ascending order."""
    return order.sample(cells, count, seed, index)


def draw_by_norm(
    norms_BP: Float[np.ndarray, "b cells"], count: int, seed: int, inputs: Sequence[int]
) -> Int64[np.ndarray, "b count"]:
    """`count` distinct cells of each input, drawn without replacement with probability
    proportional to the norm w_i of the activation, in ascending order.

    The cells with the smallest e_i / w_i, where e_i is exponentially distributed, are such a
    sample (Efraimidis & Spirakis 2006). Cells of norm zero are drawn only if too few others are
    left.
    """
    cells = norms_BP.shape[1]
    uniform_BP = np.stack([order.uniform(cells, seed, index) for index in inputs])
    keys_BP = -np.log(uniform_BP) / np.maximum(norms_BP.astype(np.float64), TINY)
    # two keys are equal with probability 2^-53, so the `count` smallest are well defined
    return np.sort(np.argpartition(keys_BP, count - 1)[:, :count]).astype(np.int64)


def on_grid(
    cells: Int[np.ndarray, "n p"], drawn_on: tuple[int, int], grid: tuple[int, int]
) -> tuple[Int[np.ndarray, "n p"], Int[np.ndarray, "n p"]]:
    """Rows and columns of the cells of another site's grid that contain the centres of the
    drawn cells: y' = floor((y + 1/2) H' / H)."""
    y, x = np.divmod(cells, drawn_on[1])
    return (2 * y + 1) * grid[0] // (2 * drawn_on[0]), (2 * x + 1) * grid[1] // (2 * drawn_on[1])
