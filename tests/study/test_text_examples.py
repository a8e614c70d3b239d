"""Examples of text in which latents are active or silent."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tendril.study.core.stores import StoredText
from tendril.study.measures.text_examples import (
    AHEAD,
    Firing,
    active_places,
    examples_of,
    silent_places,
)


def sparse(seed: int, contexts: int, length: int, fraction: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.random((contexts, length)) * (rng.random((contexts, length)) < fraction)
    return values.astype(np.float32)


def slow_places(dense_CT: np.ndarray, length: int) -> list[tuple[float, int, int]]:
    """The same, one token after the other."""
    found = []
    for context, values in enumerate(dense_CT):
        taken: list[int] = []
        for at in sorted(range(len(values)), key=lambda i: (-values[i], i)):
            start = min(max(at - int(length * AHEAD), 0), len(values) - length)
            if values[at] > 0 and all(abs(start - other) >= length for other in taken):
                taken.append(start)
                found.append((-float(values[start : start + length].max()), context, start))
    return sorted(found)


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 12), st.sampled_from([0, 0.1, 0.9]))
def test_active_examples_are_the_strongest_that_do_not_overlap(seed, contexts, length, fraction):
    dense_CT = sparse(seed, contexts, 12, fraction)
    place_N2, peak_N = active_places(dense_CT, length)
    fast = [(-float(p), int(c), int(s)) for (c, s), p in zip(place_N2, peak_N, strict=True)]
    assert fast == slow_places(dense_CT, length)


@given(st.integers(0, 999), st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.5]))
def test_silent_examples_are_silent_and_all_can_be_drawn(seed, length, fraction):
    dense_CT = sparse(seed, 20, 12, fraction)
    silent = [
        c
        for c in range(20)
        if any(not dense_CT[c, s : s + length].any() for s in range(13 - length))
    ]
    places = silent_places(dense_CT, length, 50, seed)
    assert places[:, 0].tolist() == silent
    assert all(not dense_CT[c, s : s + length].any() for c, s in places)
    assert len(silent_places(dense_CT, length, 3, seed)) == min(3, len(silent))


def firing(dense_CT: np.ndarray) -> Firing:
    contexts, length = dense_CT.shape
    tokens = np.arange(dense_CT.size, dtype=np.int32).reshape(contexts, length)
    text = StoredText(tokens, tokens * 0, np.ones(tokens.shape, bool))
    on = np.flatnonzero(dense_CT)
    return Firing(text, np.arange(contexts), (7,), [on], [dense_CT.reshape(-1)[on]])


def test_examples_are_apart_over_all_quantiles_and_a_pure_function_of_the_seed():
    dense_CT = sparse(0, 300, 16, 0.04)
    how = {"shown": 5, "top": 20, "tested": 10, "min_peak": 0.0}
    examples = examples_of(firing(dense_CT), 0, 8, seed=3, **how)
    again = examples_of(firing(dense_CT), 0, 8, seed=3, **how)
    other = examples_of(firing(dense_CT), 0, 8, seed=4, **how)
    assert examples == again != other
    _, peak_N = active_places(dense_CT, 8)
    assert all(f.peak >= peak_N[19] for f in examples.shown)
    assert not {(f.context, f.start) for f in examples.shown} & {
        (f.context, f.start) for f in examples.active
    }
    peaks = [f.peak for f in examples.active]
    assert peaks == sorted(peaks, reverse=True)
    ranks = [int((peak_N > peak).sum()) for peak in peaks]
    tenth = len(peak_N) / 10
    assert all(abs(rank - tenth * (i + 0.5)) <= tenth for i, rank in enumerate(ranks))
    assert all(f.peak == 0 for f in examples.silent) and len(examples.silent) == 10
    for f in examples.active:
        assert f.tokens == tuple(f.context * 16 + f.start + i for i in range(8))
    high = examples_of(firing(dense_CT), 0, 8, seed=3, **(how | {"min_peak": 0.5}))
    assert high.found == (peak_N >= 0.5 * peak_N[0]).sum()
    assert min(f.peak for f in high.active) >= 0.5 * high.maximum
