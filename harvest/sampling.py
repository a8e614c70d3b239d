"""Which positions of an input are kept: a pure function of (seed, input) and the norms."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Int64

from tendril.data import order

TINY = 1e-30  # stands in for a norm of zero: after all others, and in a random order


def draw_uniform(cells: int, count: int, seed: int, index: int) -> Int64[np.ndarray, " count"]:
    """`count` different cells of an input's map, each as likely, in ascending order."""
    return order.sample(cells, count, seed, index)


def draw_by_norm(
    norms_BP: Float[np.ndarray, "b cells"], count: int, seed: int, inputs: Sequence[int]
) -> Int64[np.ndarray, "b count"]:
    """`count` different cells of each input, drawn one after the other with probability
    proportional to the norm of the activation there, in ascending order.

    The smallest of e_i / w_i, with e_i exponential, are such a sample without replacement
    (Efraimidis & Spirakis 2006). Cells of norm zero come only where the others run out.
    """
    cells = norms_BP.shape[1]
    uniform_BP = np.stack([order.uniform(cells, seed, index) for index in inputs])
    keys_BP = -np.log(uniform_BP) / np.maximum(norms_BP.astype(np.float64), TINY)
    # no two keys are alike but by a chance of 2^-53, so which `count` are smallest is certain
    return np.sort(np.argpartition(keys_BP, count - 1)[:, :count]).astype(np.int64)


def on_grid(
    cells: Int[np.ndarray, "n p"], drawn_on: tuple[int, int], grid: tuple[int, int]
) -> tuple[Int[np.ndarray, "n p"], Int[np.ndarray, "n p"]]:
    """Row and column, on another site's grid, of the cells that hold the middles of the
    cells drawn: y' = floor((y + 1/2) H' / H)."""
    y, x = np.divmod(cells, drawn_on[1])
    return (2 * y + 1) * grid[0] // (2 * drawn_on[0]), (2 * x + 1) * grid[1] // (2 * drawn_on[1])
