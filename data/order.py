"""Random numbers and orders as pure functions of a key.

All randomness is the raw output of numpy's Philox generator, keyed by SeedSequence. numpy
guarantees that both stay the same in all releases, which it does not for the shuffles of
`Generator`.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, UInt64

HELD_OUT = 0x4E1D  # the key of the held-out split, which is the same for every run and seed


def raw(count: int, *key: int) -> UInt64[np.ndarray, " count"]:
    """`count` random 64-bit words; the first n do not depend on `count`."""
    words: UInt64[np.ndarray, " count"] = np.random.Philox(np.random.SeedSequence(key)).random_raw(
        count
    )
    return words


def uniform(count: int, *key: int) -> Float64[np.ndarray, " count"]:
    """`count` numbers in (0, 1), a pure function of `key`."""
    return ((raw(count, *key) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def permutation(count: int, *key: int) -> Int64[np.ndarray, " count"]:
    """A permutation of 0..count-1, a pure function of `key`, e.g. of (seed, epoch)."""
    # a stable sort would take three times as long, and no two words are equal
    return np.argsort(raw(count, *key)).astype(np.int64, copy=False)


def sample(population: int, count: int, *key: int) -> Int64[np.ndarray, " count"]:
    """`count` distinct numbers below `population`, in ascending order."""
    return np.sort(permutation(population, *key)[:count])


def held_out(inputs: Int[np.ndarray, " r"], fraction: float) -> Bool[np.ndarray, " r"]:
    """True for the rows whose *input* belongs to the held-out fraction of inputs.

    All rows of an input are on the same side, in every run and in every store of the same inputs.
    So no dictionary is ever evaluated on an image that it was trained on. Of several inputs at
    least one is held out and at least one is not; a single input is not. The inputs that a smaller
    fraction holds out are among those of a larger one.
    """
    if inputs.size == 0:
        return np.zeros(0, dtype=bool)
    draws = uniform(int(inputs.max()) + 1, HELD_OUT)
    aside_I = draws < fraction
    if 0 < fraction < 1:
        aside_I |= draws == draws.min()
        aside_I &= draws != draws.max()
    drawn: Bool[np.ndarray, " r"] = aside_I[inputs]
    return drawn
