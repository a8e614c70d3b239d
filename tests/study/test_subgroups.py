"""Subgroups of D_n and C_n: all of them, closed, with their axes and conjugacy classes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tendril.data.group.dihedral import Dihedral
from tendril.study.measures.subgroups import subgroups

groups = st.builds(Dihedral, st.integers(1, 12), st.booleans())


@given(groups)
def test_subgroups_are_closed_and_all_of_them(group: Dihedral) -> None:
    found = subgroups(group)
    sets = {frozenset(h.elements) for h in found}
    divisors = [d for d in range(1, group.rotations + 1) if group.rotations % d == 0]

    assert len(sets) == len(found) == len(divisors) + group.reflections * sum(divisors)
    for h in found:
        products = group.table_GG[np.ix_(h.elements, h.elements)]
        assert set(products.ravel()) == set(h.elements)


@given(groups)
def test_axis_classes_are_the_conjugacy_classes(group: Dihedral) -> None:
    by_set = {frozenset(h.elements): h for h in subgroups(group)}
    for h in by_set.values():
        conjugates = {
            frozenset(group.product(group.product(g, s), group.inverse(g)) for s in h.elements)
            for g in range(len(group))
        }
        alike = {
            elements
            for elements, other in by_set.items()
            if (other.kind, other.axis_class) == (h.kind, h.axis_class)
        }
        assert conjugates == alike


@given(groups)
def test_every_subgroup_has_its_axes_where_it_says(group: Dihedral) -> None:
    for h in subgroups(group):
        if h.degrees is None:
            continue
        for i in range(h.turns):
            angle = np.radians(h.degrees + i * 180 / h.turns)
            axis = np.array([np.cos(angle), np.sin(angle)])
            assert any(
                np.allclose(group.matrix_G22[s] @ axis, axis)
                for s in h.elements
                if group.parts(s)[0]
            )
