"""The dihedral group D_n (rotations and reflections of an image) and the cyclic group C_n.

Element (m, k) is T = R_k M^m: reflect m times, then rotate by 360 k / n degrees. Angles are in
degrees, clockwise on screen from +x (y points down). M flips y, so that a direction of angle a
becomes -a, and R_k M is the reflection in the axis of angle 180 k / n. Elements are numbered
g = m n + k: the rotations first, 0 is the identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from jaxtyping import Float64, Int64

from ..errors import ConfigError


@final
@dataclass(frozen=True)
class Dihedral:
    """D_n with n = `rotations` (2n elements), or C_n without `reflections` (n elements).

    Raises ConfigError if `rotations` is less than 1.
    """

    rotations: int
    reflections: bool = True

    def __post_init__(self) -> None:
        if self.rotations < 1:
            raise ConfigError(f"--rotations must be at least 1; got {self.rotations}.")

    def __len__(self) -> int:
        return self.rotations * (2 if self.reflections else 1)

    @property
    def name(self) -> str:
        """The name of the group, e.g. D16 or C8."""
        return f"{'D' if self.reflections else 'C'}{self.rotations}"

    @property
    def step(self) -> float:
        """Degrees between consecutive rotations."""
        return 360 / self.rotations

    def element(self, reflected: int, turns: int) -> int:
        """The number of R_turns M^reflected."""
        return (reflected % 2) * self.rotations + turns % self.rotations

    def parts(self, g: int) -> tuple[int, int]:
        """(m, k) of an element."""
        return divmod(g, self.rotations)

    def product(self, a: int, b: int) -> int:
        """The product a b (apply b first): (m1, k1)(m2, k2) = (m1 + m2, k1 + (-1)^m1 k2)."""
        (m1, k1), (m2, k2) = self.parts(a), self.parts(b)
        return self.element(m1 + m2, k1 + (-1) ** m1 * k2)

    def inverse(self, g: int) -> int:
        """The inverse of an element; a reflection is its own inverse."""
        m, k = self.parts(g)
        return g if m else self.element(0, -k)

    @cached_property
    def table_GG(self) -> Int64[np.ndarray, "g g"]:
        """The Cayley table: entry [a, b] is the number of the product a b."""
        size = range(len(self))
        return np.array([[self.product(a, b) for b in size] for a in size], np.int64)

    @cached_property
    def inverse_G(self) -> Int64[np.ndarray, " g"]:
        """The inverse of every element."""
        return np.array([self.inverse(g) for g in range(len(self))], np.int64)

    @cached_property
    def matrix_G22(self) -> Float64[np.ndarray, "g 2 2"]:
        """The matrix of each element on (x, y), y down; exact for multiples of 90 degrees."""
        return np.stack([_matrix(*self.parts(g), self.rotations) for g in range(len(self))])

    @cached_property
    def characters(self) -> dict[str, Float64[np.ndarray, " g"]]:
        """The real irreducible representations: name -> character (trace) of each element.

        `A1` is trivial. `A2` changes sign under reflections. For even n, `B1` and `B2` change sign
        under odd rotations (for C_n there is one, `B`). `E1`, `E2`, ... have dimension two; `Ej`
        rotates j times as fast as the image. Source: Serre, Linear representations of finite
        groups, 5.1 and 5.3.
        """
        n = self.rotations
        m_G, k_G = np.divmod(np.arange(len(self)), n)
        sign_G, odd_G = 1.0 - 2.0 * m_G, 1.0 - 2.0 * (k_G % 2)
        table: dict[str, Float64[np.ndarray, " g"]] = {"A1": np.ones(len(self))}
        if self.reflections:
            table["A2"] = sign_G
        if n % 2 == 0 and self.reflections:
            table |= {"B1": odd_G, "B2": odd_G * sign_G}
        elif n % 2 == 0:
            table["B"] = odd_G
        for j in range(1, (n + 1) // 2):
            table[f"E{j}"] = np.where(m_G == 0, 2 * np.cos(2 * np.pi * j * k_G / n), 0.0)
        return table


def group_of(inputs: Mapping[str, Any]) -> Dihedral | None:
    """The group that was applied to the inputs of a store, from their identity in its spec.

    None without a group.
    """
    orbit = inputs.get("orbit")
    return Dihedral(orbit["rotations"], orbit["reflections"]) if orbit else None


def _matrix(m: int, k: int, n: int) -> Float64[np.ndarray, "2 2"]:
    quarters, rest = divmod(4 * k, n)
    angle = np.pi / 2 * rest / n
    cosine, sine = (1.0, 0.0) if rest == 0 else (float(np.cos(angle)), float(np.sin(angle)))
    for _ in range(quarters % 4):
        cosine, sine = -sine, cosine
    turn = np.array([[cosine, -sine], [sine, cosine]]) + 0.0  # turns -0 into 0
    return turn @ np.diag([1.0, -1.0]) if m else turn
