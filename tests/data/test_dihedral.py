"""The dihedral group: axioms, matrices and characters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tendril.data.errors import ConfigError
from tendril.data.group.dihedral import Dihedral

groups = st.builds(Dihedral, st.integers(1, 33), st.booleans())


@given(groups)
def test_the_table_is_that_of_the_matrices(group: Dihedral) -> None:
    product_GG22 = np.einsum("aij,bjk->abik", group.matrix_G22, group.matrix_G22)
    assert np.allclose(product_GG22, group.matrix_G22[group.table_GG], atol=1e-12)


@given(groups)
def test_every_element_is_another_and_has_an_inverse(group: Dihedral) -> None:
    flat = group.matrix_G22.reshape(len(group), 4).round(9) + 0.0

    assert len(np.unique(flat, axis=0)) == len(group)
    everyone = np.arange(len(group))
    assert (group.table_GG[everyone, group.inverse_G] == 0).all()
    assert (np.sort(group.table_GG, axis=1) == everyone).all()


def test_a_turn_is_clockwise_on_screen_and_a_reflection_turns_angles_about() -> None:
    group = Dihedral(8)
    right = np.array([1.0, 0.0])
    assert np.allclose(group.matrix_G22[group.element(0, 2)] @ right, [0, 1])  # y points down
    slanted = np.array([np.cos(0.3), np.sin(0.3)])
    assert np.allclose(group.matrix_G22[group.element(1, 0)] @ slanted, [slanted[0], -slanted[1]])
    axis = np.radians(180 * 3 / 8)
    on_axis = np.array([np.cos(axis), np.sin(axis)])
    assert np.allclose(group.matrix_G22[group.element(1, 3)] @ on_axis, on_axis)


def test_multiples_of_a_right_angle_are_exact() -> None:
    group = Dihedral(12)
    for k in range(0, 12, 3):
        for m in (0, 1):
            matrix = group.matrix_G22[group.element(m, k)]
            assert (np.abs(matrix) == np.abs(matrix).round()).all()


@given(groups)
def test_characters_are_orthogonal_and_complete(group: Dihedral) -> None:
    table = np.stack(list(group.characters.values()))
    gram = table @ table.T / len(group)
    # a two-dimensional real representation of C_n is two complex ones, so its norm is 2
    norms = [
        1.0 if group.reflections or not name.startswith("E") else 2.0 for name in group.characters
    ]
    assert np.allclose(gram, np.diag(norms))
    assert np.isclose(sum(c[0] ** 2 / n for c, n in zip(table, norms, strict=True)), len(group))


def test_the_group_does_not_commute() -> None:
    group = Dihedral(5)
    turn, mirror = group.element(0, 1), group.element(1, 0)
    assert group.product(turn, mirror) == group.element(1, 1)
    assert group.product(mirror, turn) == group.element(1, 4)


def test_without_a_turn_there_is_no_group() -> None:
    with pytest.raises(ConfigError, match="rotations"):
        Dihedral(0)
