"""Chance levels of the gaps that a family of curve detectors leaves on the circle.

More orientations leave narrower gaps by themselves, so a gap is compared with the gaps that as many
orientations drawn at random leave. Angles are degrees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from .curve_scores import Gap, coverage

DRAWS = 10_000
WIDE = 30.0
"""Degrees from which on a gap between neighbouring curve units is studied."""
LEVEL = 0.05
"""A P value below this, corrected for the number of comparisons, counts as evidence."""


@final
@dataclass(frozen=True)
class Chance:
    """An observed figure and its distribution under one null hypothesis.

    mean, low, high: mean, 5 % and 95 % quantile of the figure under the null hypothesis
    p:               probability of a figure at least as extreme as the observed one,
                     (1 + number of draws as extreme) / (1 + number of draws)
    """

    observed: float
    mean: float
    low: float
    high: float
    p: float

    def figures(self) -> dict[str, float]:
        """Rounded values for the result of a command."""
        return {
            "observed": round(self.observed, 2),
            "mean": round(self.mean, 2),
            "low": round(self.low, 2),
            "high": round(self.high, 2),
            "p": round(self.p, 4),
        }

    def text(self, unit: str = "°", digits: int = 0) -> str:
        """`118° (chance 103°, 78° to 130°; P = 0.82)`."""
        one, two, three, four = (
            f"{x:.{digits}f}{unit}" for x in (self.observed, self.mean, self.low, self.high)
        )
        return f"{one} (chance {two}, {three} to {four}; {p_text(self.p)})"


def p_text(p: float) -> str:
    """`P = 0.03`, or `P < 0.001`."""
    return "P < 0.001" if p < 0.001 else f"P = {p:.2f}" if p >= 0.01 else f"P = {p:.3f}"


def compare(observed: float, drawn_N: Float[np.ndarray, " n"], *, large: bool = False) -> Chance:
    """The observed figure against draws under the null hypothesis.

    Small figures are extreme, as where narrow gaps are evidence, or large ones if `large`.
    """
    slack = 1e-9 * max(abs(observed), 1.0)  # equal figures count as extreme
    extreme = drawn_N >= observed - slack if large else drawn_N <= observed + slack
    low, high = np.quantile(drawn_N, [0.05, 0.95])
    return Chance(
        observed,
        float(drawn_N.mean()),
        float(low),
        float(high),
        float((1 + extreme.sum()) / (1 + len(drawn_N))),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's method, in the order given.

    The i-th smallest of m, counted from 0, becomes the maximum over j <= i of (m - j) p_(j), at
    most 1. Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, running = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        running = max(running, (len(p_values) - place) * p_values[index])
        corrected[index] = min(running, 1.0)
    return corrected


def uniform(count: int, draws: int = DRAWS, seed: int = 0) -> Float[np.ndarray, "n m"]:
    """`draws` sets of `count` orientations, uniform on the circle."""
    return np.random.default_rng(seed).uniform(0, 360, (draws, count))


def copies_a_unit(rows_SD: Float[np.ndarray, "s d"]) -> list[bool]:
    """For each decoder row, True if more than half of its squared norm lies in one channel."""
    power_SD = np.square(rows_SD, dtype=np.float64)
    return [bool(p.max() > 0.5 * p.sum()) for p in power_SD]


def widest_gaps(angles_NM: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """The widest gap of each set of orientations; 360 degrees for empty sets."""
    if angles_NM.shape[1] == 0:
        return np.full(len(angles_NM), 360.0)
    ordered = np.sort(angles_NM % 360, axis=1)
    around = ordered[:, :1] + 360
    return np.asarray(np.diff(ordered, axis=1, append=around).max(axis=1))


def left_over(found: Sequence[Gap], angles_NM: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Degrees that remain of the gaps, summed over them, for each set of orientations.

    What remains of a gap is its widest stretch without one of the orientations.
    """
    total_N = np.zeros(len(angles_NM))
    for gap in found:
        inside = (angles_NM - gap.start) % 360
        inside = np.sort(np.where(inside < gap.degrees, inside, gap.degrees), axis=1)
        ends = np.full((len(inside), 1), gap.degrees)
        edges = np.concatenate([np.zeros_like(ends), inside, ends], axis=1)
        total_N += np.diff(edges, axis=1).max(axis=1)
    return total_N


def widest_chance(orientations: Sequence[float], *, large: bool = False) -> Chance | None:
    """The widest gap against as many orientations drawn uniformly; None for an empty family."""
    if not orientations:
        return None
    observed = coverage(orientations).degrees
    return compare(observed, widest_gaps(uniform(len(orientations))), large=large)


@final
@dataclass(frozen=True)
class GapChance:
    """The gaps that a run's curve latents leave, under three null hypotheses.

    widest:  the widest gap, against as many uniform orientations
    left:    what remains of the units' gaps, against as many uniform orientations
    surplus: what remains of the units' gaps once the latents that copy no unit are added to the
             units, against as many uniform orientations added to the units
    control: the same, against as many latents drawn from the curve latents of the controls, by the
             control's name; only of controls that have enough
    """

    widest: Chance
    left: Chance | None
    surplus: Chance | None
    control: Mapping[str, Chance]

    def figures(self) -> dict[str, Any]:
        """The distributions as JSON values."""
        return {
            "widest": self.widest.figures(),
            "left": self.left and self.left.figures(),
            "surplus": self.surplus and self.surplus.figures(),
            "controls": {name: one.figures() for name, one in self.control.items()},
        }


def gap_chance(
    found: Sequence[Gap],
    latents: Sequence[float],
    copies: Sequence[bool],
    controls: Mapping[str, Sequence[float]],
) -> GapChance | None:
    """Compare the latents of a run with chance.

    `found` are the gaps between units, `latents` the orientations of the run's curve latents,
    `copies` which of them copy a unit, and `controls` the orientations of each control's curve
    latents. None for a run without curve latents.
    """
    widest = widest_chance(latents)
    if widest is None:
        return None
    if not found:
        return GapChance(widest, None, None, {})
    observed = float(left_over(found, np.array([latents]))[0])
    drawn_NM = uniform(len(latents))
    new = [angle for angle, copy in zip(latents, copies, strict=True) if not copy]
    with_new = float(left_over(found, np.array([new]))[0])
    return GapChance(
        widest,
        compare(observed, left_over(found, drawn_NM)),
        compare(with_new, left_over(found, drawn_NM[:, : len(new)])),
        {
            name: compare(observed, left_over(found, subsets(angles, len(latents))))
            for name, angles in controls.items()
            if len(angles) >= len(latents)
        },
    )


def subsets(
    angles: Sequence[float], count: int, draws: int = DRAWS, seed: int = 0
) -> Float[np.ndarray, "n m"]:
    """`draws` random subsets of `count` of the orientations."""
    rng = np.random.default_rng(seed)
    order_NM = rng.random((draws, len(angles))).argpartition(count - 1, axis=1)[:, :count]
    return np.asarray(angles, dtype=float)[order_NM]


def envelope_chance(radial_AM: Float[np.ndarray, "a m"], draws: int = 2000) -> Chance | None:
    """The lowest point of the family's envelope, against tuning curves turned at random.

    `radial_AM` holds the tuning curves of the members. Each is scaled to a maximum of 1 and shifted
    by a uniform number of samples. A high minimum is evidence of an even coverage. None for an
    empty family.
    """
    if radial_AM.shape[1] == 0:
        return None
    scaled_AM = radial_AM / np.maximum(radial_AM.max(axis=0), 1e-30)
    count = len(scaled_AM)
    shifts_NM = np.random.default_rng(0).integers(0, count, (draws, scaled_AM.shape[1]))
    lowest = np.zeros(draws)
    rows_A1, columns = np.arange(count)[:, None], np.arange(scaled_AM.shape[1])
    for i, shift_M in enumerate(shifts_NM):
        lowest[i] = scaled_AM[(rows_A1 - shift_M) % count, columns].max(axis=1).min()
    return compare(float(scaled_AM.max(axis=1).min()), lowest, large=True)
