"""How far two scores of the same things agree."""

import numpy as np
from jaxtyping import Float


def ranks(values_N: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: Float[np.ndarray, " n"] = ((ends - counts + ends - 1) / 2)[inverse]
    return shared


def rank_correlation(a_N: Float[np.ndarray, " n"], b_N: Float[np.ndarray, " n"]) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks. None where one of them is constant."""
    a, b = (ranks(values) - (len(values) - 1) / 2 for values in (a_N, b_N))
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread > 0 else None


def overlap(a_N: Float[np.ndarray, " n"], b_N: Float[np.ndarray, " n"], top: int) -> int:
    """How many of the `top` largest of one are among the `top` largest of the other."""
    first, second = (
        set(np.argsort(-values, kind="stable")[:top].tolist()) for values in (a_N, b_N)
    )
    return len(first & second)
