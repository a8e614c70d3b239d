from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tendril.data.errors import ConfigError
from tendril.data.store.reader import Store, open_store

from ..helpers import arithmetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    home = tmp_path_factory.mktemp("home")
    arithmetic.harvest(home)
    return open_store(home / arithmetic.spec().folder("arithmetic"))


def keys(rows: torch.Tensor | np.ndarray) -> list[tuple[float, ...]]:
    """Rows as sorted tuples. All rows of `sine` are different."""
    return sorted(map(tuple, np.asarray(rows).tolist()))


@cache
def all_keys(store: Store) -> list[tuple[float, ...]]:
    return keys(store.read("sine", np.flatnonzero(store.column("valid"))))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 400), window=st.sampled_from([1, 3, 25]), seed=st.integers(0, 9))
def test_an_epoch_holds_every_valid_row_once(
    store: Store, batch: int, window: int, seed: int
) -> None:
    batches = store.batches("sine", batch, seed=seed, part="all", epochs=1, window=window)
    rows = torch.cat(list(batches))
    assert keys(rows) == all_keys(store)


def test_batches_flow_over_the_border_of_epochs(store: Store) -> None:
    batches = store.batches("sine", 100, part="all", window=3)
    rows = torch.cat(list(islice(batches, 6)))[: 2 * 294]
    assert keys(rows[:294]) == keys(rows[294:]) == all_keys(store)
    assert not torch.equal(rows[:294], rows[294:])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 130),
    before=st.integers(0, 12),
    window=st.sampled_from([1, 4, 100]),
    seed=st.integers(0, 5),
)
def test_a_stream_resumes_anywhere(
    store: Store, batch: int, before: int, window: int, seed: int
) -> None:
    def stream():  # type: ignore[no-untyped-def]
        return store.batches("sine", batch, seed=seed, window=window)

    whole = stream()
    for _ in range(before):
        next(whole)
    other = stream()
    other.restore(whole.state())
    for _ in range(5):
        assert torch.equal(next(whole), next(other))
    whole.close(), other.close()


def test_seeds_and_epochs_differ_and_are_repeatable(store: Store) -> None:
    def first(seed: int) -> torch.Tensor:
        return next(store.batches("sine", 50, seed=seed))

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_held_out_inputs_are_never_trained_on(store: Store) -> None:
    parts = {
        part: keys(torch.cat(list(store.batches("sine", 64, part=part, held_out=0.3, epochs=1))))
        for part in ("train", "held_out")
    }
    assert not set(parts["train"]) & set(parts["held_out"])
    assert sorted(parts["train"] + parts["held_out"]) == all_keys(store)
    assert len(parts["held_out"]) % 6 == 0  # whole inputs


def test_rows_by_number_come_in_the_order_asked_for(store: Store) -> None:
    rows = np.array([299, 0, 150, 0])
    everything = store.read("wave", slice(0, 300))
    assert np.array_equal(store.read("wave", rows), everything[rows])


def test_what_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"must be one of sine, wave, .* got 'cosine'"):
        store.batches("cosine", 4)
    with pytest.raises(ConfigError, match="part must be one of"):
        store.batches("sine", 4, part="test")
    with pytest.raises(ConfigError, match="no valid rows"):
        store.batches("sine", 4, part="held_out", held_out=0.0)


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("windw", "Did you mean 'window'"),
        ("huge", "Leave it out"),
        ("norm_outlier", "'norm_outliers'"),
    ],
)
def test_an_unknown_option_is_an_error_that_names_the_near_one(
    store: Store, option: str, instead: str
) -> None:
    with pytest.raises(ConfigError, match=f"got '{option}'.*{instead}"):
        store.batches("sine", 4, **{option: "drop"})  # type: ignore[call-overload]
