"""The subgroups of D_n and C_n: the possible stabilisers of a pattern."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float64

from tendril.data.group.dihedral import Dihedral


@final
@dataclass(frozen=True)
class Subgroup:
    """C_d, the turns by multiples of 360 / d degrees, or D_d, which adds d reflections.

    `axis` = j numbers the first axis of D_d clockwise from +x, at the angle 180 j / n with
    0 <= j < n / d; it is None for C_d.
    """

    group: Dihedral
    turns: int
    axis: int | None = None

    @property
    def kind(self) -> str:
        """C1, C2, D1, D2 ...: the same for subgroups that differ only in their axes."""
        return f"{'C' if self.axis is None else 'D'}{self.turns}"

    @property
    def degrees(self) -> float | None:
        """The angle of the first axis; axes are 180 / turns degrees apart."""
        return None if self.axis is None else 180 * self.axis / self.group.rotations

    @property
    def axis_class(self) -> str:
        """`on` a direction to which a turn of the group takes +x, or `between` two of them.

        For even n / d the two classes are not conjugate: no element of the group takes one into
        the other. For odd n / d there is one class, `on`.
        """
        if self.axis is None:
            return ""
        several = self.group.rotations // self.turns % 2 == 0
        return "between" if several and self.axis % 2 else "on"

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """The numbers of the elements, turns first."""
        apart = self.group.rotations // self.turns
        turns = [self.group.element(0, i * apart) for i in range(self.turns)]
        if self.axis is None:
            return tuple(turns)
        mirrors = [self.group.element(1, self.axis + i * apart) for i in range(self.turns)]
        return tuple(turns + mirrors)

    def __len__(self) -> int:
        return len(self.elements)


def subgroups(group: Dihedral) -> list[Subgroup]:
    """All subgroups: C_d for every divisor d of n and, with reflections, D_d on n / d axes.

    D_n has (number of divisors of n) + (sum of divisors of n) subgroups.
    """
    n = group.rotations
    found = []
    for turns in (d for d in range(1, n + 1) if n % d == 0):
        found.append(Subgroup(group, turns))
        if group.reflections:
            found += [Subgroup(group, turns, axis) for axis in range(n // turns)]
    return found


def averaging(chosen: list[Subgroup]) -> Float64[np.ndarray, "h g"]:
    """A matrix whose row H is 1 / |H| on the elements of H and 0 elsewhere."""
    matrix_HG = np.zeros((len(chosen), len(chosen[0].group)))
    for row, subgroup in zip(matrix_HG, chosen, strict=True):
        row[list(subgroup.elements)] = 1 / len(subgroup)
    return matrix_HG
