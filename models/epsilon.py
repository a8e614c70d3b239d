"""The units of an attack's strength. No torch here: configs check what they are given at once."""

import math

from tendril.data.errors import ConfigError


def check_epsilon(epsilon: float, norm: str, pixels: int = 0, name: str = "epsilon") -> None:
    """Raise ConfigError for an epsilon below 0, or larger than any change of an image of so many
    numbers in 0..1: it is of another scale, most likely that of 0..255. With 0 pixels an L2 epsilon
    has no largest value."""
    largest = 1.0 if norm == "linf" else math.sqrt(pixels) if pixels else math.inf
    if not 0 <= epsilon <= largest:
        hint = f" For pixels in 0..255, give {epsilon / 255:.4g}." if epsilon > 0 else ""
        raise ConfigError(
            f"{name} must be in units of pixels in 0..1, from 0 to {largest:.3g} for the norm "
            f"{norm}; got {epsilon:g}.{hint}"
        )
