"""Transform blocks whose symmetries are known, made without what is tested."""

import numpy as np

from tendril.data.group.dihedral import Dihedral


def pattern(rng: np.random.Generator, points: int = 3) -> np.ndarray:
    """Some points of the plane with a weight each, rows (x, y, weight)."""
    return np.column_stack([rng.uniform(-1, 1, (points, 2)), rng.uniform(0.5, 1.5, points)])


def under(matrix: np.ndarray, points_P3: np.ndarray) -> np.ndarray:
    """The pattern moved by a 2 x 2 matrix."""
    return np.column_stack([points_P3[:, :2] @ matrix.T, points_P3[:, 2]])


def symmetric(points_P3: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """The pattern and its images, all together: every one of those matrices fixes it, where
    they make up a group."""
    return np.concatenate([under(matrix, points_P3) for matrix in matrices])


def reflection(degrees: float) -> np.ndarray:
    """In the axis of that angle."""
    twice = 2 * np.radians(degrees)
    return np.array([[np.cos(twice), np.sin(twice)], [np.sin(twice), -np.cos(twice)]])


def turn(degrees: float) -> np.ndarray:
    """Clockwise on screen, y down."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


class Units:
    """A network a(p) of D units that each see one place in the plane and have no symmetry."""

    def __init__(self, rng: np.random.Generator, width: int = 24) -> None:
        self.places_D2 = rng.uniform(-1.2, 1.2, (width, 2))
        self.gain_D = rng.uniform(0.5, 2, width)

    def __call__(self, points_P3: np.ndarray) -> np.ndarray:
        away_PD = ((points_P3[:, None, :2] - self.places_D2) ** 2).sum(-1)
        return self.gain_D * (points_P3[:, 2] @ np.exp(-4 * away_PD))

    def orbit(self, points_P3: np.ndarray, group: Dihedral) -> np.ndarray:
        """x(p)[g] = a(T_g p), [G, D]: pixels move by T_g where (T_g p)(x) = p(T_g^-1 x)."""
        return np.stack([self(under(matrix, points_P3)) for matrix in group.matrix_G22])
