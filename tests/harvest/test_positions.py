import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tendril.harvest.sampling import draw_by_norm, draw_uniform, on_grid


@given(st.integers(1, 60), st.data())
def test_positions_differ_and_are_a_pure_function_of_seed_and_input(
    cells: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, cells))
    norms = np.random.default_rng(0).random(cells)
    for drawn in (draw_uniform(cells, count, 3, 5), draw_by_norm(norms[None], count, 3, [5])[0]):
        assert len(set(drawn.tolist())) == count
        assert (np.diff(drawn) > 0).all()
        assert 0 <= drawn[0] <= drawn[-1] < cells
    assert np.array_equal(draw_uniform(cells, count, 3, 5), draw_uniform(cells, count, 3, 5))


def test_inputs_and_seeds_draw_differently() -> None:
    draws = {tuple(draw_uniform(100, 5, seed, i)) for seed in range(3) for i in range(3)}
    assert len(draws) == 9


def test_the_chance_of_a_position_is_proportional_to_its_norm() -> None:
    norms = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    counts = np.bincount(
        [int(draw_by_norm(norms[None], 1, 0, [i])[0][0]) for i in range(6000)], minlength=5
    )
    np.testing.assert_allclose(counts / 6000, norms / 10, atol=0.02)


def test_positions_of_norm_zero_come_only_when_the_others_run_out() -> None:
    norms = np.array([0.0, 1.0, 0.0, 5.0])
    assert {tuple(draw_by_norm(norms[None], 2, 0, [i])[0]) for i in range(50)} == {(1, 3)}
    assert {tuple(draw_by_norm(norms[None], 3, 0, [i])[0]) for i in range(50)} == {
        (0, 1, 3),
        (1, 2, 3),
    }


def test_a_place_is_found_on_another_sites_map() -> None:
    cells = np.arange(4)[None]  # a 2 x 2 map
    y, x = on_grid(cells, (2, 2), (4, 4))
    assert y.tolist() == [[1, 1, 3, 3]]
    assert x.tolist() == [[1, 3, 1, 3]]
    y, x = on_grid(np.arange(16)[None], (4, 4), (2, 2))
    assert y.reshape(4, 4)[:, 0].tolist() == [0, 0, 1, 1]
    same, _ = on_grid(np.arange(9)[None], (3, 3), (3, 3))
    assert same.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]]
