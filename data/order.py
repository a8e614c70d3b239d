"""Order as a pure function: nothing here remembers what was drawn before.

All randomness is the raw output of numpy's Philox generator, keyed through SeedSequence; both
are frozen by numpy's compatibility promise, so an order never changes with a numpy release
(the shuffles of `Generator` may).
"""

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, UInt64

HELD_OUT = 0x4E1D  # the key of the held-out split, the same for every run and seed


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
    # not the stable sort, which takes three times as long: no two words are alike
    return np.argsort(raw(count, *key)).astype(np.int64, copy=False)


def sample(population: int, count: int, *key: int) -> Int64[np.ndarray, " count"]:
    """`count` different numbers below `population`, in ascending order."""
    return np.sort(permutation(population, *key)[:count])


def held_out(inputs: Int[np.ndarray, " r"], share: float) -> Bool[np.ndarray, " r"]:
    """Which rows belong to the held-out share, decided by their *input*.

    Every row of an input falls on the same side, in every run over every store of the same
    inputs, so that no dictionary is ever judged on an image that it has seen.
    """
    if inputs.size == 0:
        return np.zeros(0, dtype=bool)
    draws = uniform(int(inputs.max()) + 1, HELD_OUT)
    drawn: Bool[np.ndarray, " r"] = draws[inputs] < share
    return drawn
