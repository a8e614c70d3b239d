import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tendril.data import order

KEYS = st.lists(st.integers(0, 2**31), min_size=1, max_size=3)


@given(st.integers(0, 300), KEYS)
def test_a_permutation_holds_every_number_once(count: int, key: list[int]) -> None:
    assert sorted(order.permutation(count, *key)) == list(range(count))


@given(st.integers(2, 100), KEYS)
def test_the_order_is_a_pure_function_of_its_key(count: int, key: list[int]) -> None:
    first = order.permutation(count, *key)
    order.permutation(7, 1)
    assert np.array_equal(first, order.permutation(count, *key))


def test_the_order_never_changes_with_a_release_of_numpy() -> None:
    assert order.permutation(8, 0, 1).tolist() == GOLDEN
    assert order.raw(1, 3)[0] == GOLDEN_WORD


def test_uniform_numbers_are_uniform_and_their_beginning_does_not_depend_on_their_count() -> None:
    draws = order.uniform(20000, 5)
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(draws.var() - 1 / 12) < 0.003
    assert np.array_equal(draws[:10], order.uniform(10, 5))


@given(st.integers(1, 50), st.data())
def test_a_sample_is_different_numbers_in_order(population: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, population))
    drawn = order.sample(population, count, 1)
    assert len(set(drawn.tolist())) == count
    assert (np.diff(drawn) > 0).all()


def test_rows_of_an_input_are_held_out_together() -> None:
    inputs = np.repeat(np.arange(2000), 3)
    aside = order.held_out(inputs, 0.1).reshape(2000, 3)
    assert (aside.all(1) == aside.any(1)).all()
    assert 0.07 < aside.mean() < 0.13
    assert np.array_equal(order.held_out(inputs[:300], 0.1), aside.ravel()[:300])


def test_of_few_inputs_one_is_held_out() -> None:
    for count in range(2, 60):
        inputs = np.arange(count)
        sides = [order.held_out(inputs, fraction) for fraction in (0.001, 0.01, 0.05, 0.3)]
        assert all(side.any() and not side.all() for side in sides), count
        for smaller, larger in itertools.pairwise(sides):
            assert (larger | ~smaller).all(), "fractions are nested"
    assert not order.held_out(np.arange(20), 0.0).any()
    assert not order.held_out(np.zeros(5, int), 0.5).any(), "a single input is for training"


GOLDEN = [3, 7, 4, 2, 1, 6, 5, 0]
GOLDEN_WORD = 835510913015652550
