"""Scores of units as curve detectors, from their responses to drawn curves.

Letters of the shapes: A orientations, Q radii, E styles (line, edge, ...), D units or latents.
Orientations are degrees clockwise on screen from +x, evenly spaced over the circle.
Source of the protocol: Cammarata et al., "Curve Detectors", Distill 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float

ECHO_WINDOW = 30.0
"""An echo is searched within this many degrees of the peak's opposite."""


@dataclass(frozen=True)
class CurveScores:
    """Measures of every unit of a site, one array of length D each.

    orientation: circular mean direction of the radial tuning curve, degrees
    peak:        where the tuning curve is highest, refined between samples, degrees
    resultant:   |sum r e^(i theta)| / sum r; 0 for a flat curve, 1 for a single direction
    width:       full width of the peak at half its height, degrees; 360 when it never falls so low
    echo:        highest response within 30 degrees of the peak's opposite, over the peak
    max:         height of the tuning curve, in units of the activation
    tolerance:   fraction of radii with at least half the best radius's response at the peak
    line_edge:   (edge - line) / (edge + line) of the styles' maxima; -1 only lines, +1 only edges
    radius:      the radius that excites most at the peak, in pixels
    rival:       greatest response to a rival shape over the greatest response to a curve; infinite
                 without a response to any curve, 0 where no rivals were shown
    """

    orientation: Float[np.ndarray, " d"]
    peak: Float[np.ndarray, " d"]
    resultant: Float[np.ndarray, " d"]
    width: Float[np.ndarray, " d"]
    echo: Float[np.ndarray, " d"]
    max: Float[np.ndarray, " d"]
    tolerance: Float[np.ndarray, " d"]
    line_edge: Float[np.ndarray, " d"]
    radius: Float[np.ndarray, " d"]
    rival: Float[np.ndarray, " d"]

    def row(self, unit: int) -> dict[str, float]:
        """The measures of one unit, by name."""
        return {field.name: float(getattr(self, field.name)[unit]) for field in fields(self)}


@dataclass(frozen=True)
class CurveThresholds:
    """Thresholds that a curve detector must pass."""

    resultant: float = 0.85
    """Least resultant length of the radial tuning curve. Distill's mixed3b family has 0.89 to
    0.96."""
    echo: float = 0.10
    """Greatest response to the curve turned by 180 degrees, over the peak."""
    strength: float = 0.20
    """Least maximum, as a fraction of that of the site's strongest unit."""
    rival: float = 1.0
    """Greatest response to a corner, a straight edge or line, a line end, a circle or a grating,
    over the greatest response to a curve."""

    def passes(self, scores: CurveScores) -> dict[str, Bool[np.ndarray, " d"]]:
        """For each criterion, which units meet it."""
        strongest = scores.max.max(initial=0.0)
        return {
            "resultant": scores.resultant >= self.resultant,
            "echo": scores.echo <= self.echo,
            "strength": (scores.max >= self.strength * strongest) & (scores.max > 0),
            "rival": scores.rival <= self.rival,
        }

    def curves(self, scores: CurveScores) -> list[int]:
        """The units that meet every criterion, in order of orientation."""
        chosen = np.flatnonzero(np.all(list(self.passes(scores).values()), axis=0))
        return [int(unit) for unit in chosen[np.argsort(scores.orientation[chosen])]]


@dataclass(frozen=True)
class Gap:
    """A range of orientations without a curve detector, in degrees."""

    start: float
    degrees: float

    @property
    def middle(self) -> float:
        """The orientation that a missing detector should have."""
        return (self.start + self.degrees / 2) % 360


def radial_tuning(responses: Float[np.ndarray, "a q e d"]) -> Float[np.ndarray, "a d"]:
    """r(theta): the positive response averaged over curvature and style."""
    return np.asarray(np.maximum(responses, 0).mean(axis=(1, 2), dtype=np.float64))


def score_curves(
    responses: Float[np.ndarray, "a q e d"],
    orientations: Float[np.ndarray, " a"],
    radii: Float[np.ndarray, " q"],
    styles: Sequence[str],
    rivals: Float[np.ndarray, "k d"] | None = None,
) -> CurveScores:
    """Every measure of every unit; a unit that never fires scores 0 with echo 1 and width 360.

    `rivals` holds the greatest response to each kind of rival shape, if any were shown.
    """
    radial_AD = radial_tuning(responses)
    best_D = radial_AD.argmax(axis=0)
    highest_D = radial_AD.max(axis=0)
    direction_D, resultant_D = mean_direction(radial_AD, orientations)
    at_peak_QED = np.maximum(np.take_along_axis(responses, best_D[None, None, None], axis=0)[0], 0)
    by_radius_QD = at_peak_QED.mean(axis=1)
    reached_QD = (by_radius_QD >= 0.5 * by_radius_QD.max(axis=0)) & (by_radius_QD > 0)
    by_style_ED = np.maximum(responses, 0).mean(axis=1, dtype=np.float64).max(axis=0)
    drawn = np.array([style == "line" for style in styles])
    line_D, edge_D = (
        by_style_ED[chosen].sum(axis=0) / max(chosen.sum(), 1) for chosen in (drawn, ~drawn)
    )
    return CurveScores(
        orientation=direction_D,
        peak=_refined_peak(radial_AD, orientations),
        resultant=resultant_D,
        width=half_width(radial_AD),
        echo=_echo(radial_AD),
        max=highest_D,
        tolerance=reached_QD.mean(axis=0),
        line_edge=_ratio(edge_D - line_D, edge_D + line_D),
        radius=np.asarray(radii, dtype=float)[by_radius_QD.argmax(axis=0)],
        rival=_rival(responses, rivals),
    )


def mean_direction(
    radial: Float[np.ndarray, "a d"], orientations: Float[np.ndarray, " a"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Circular mean direction in degrees, and resultant length, of each tuning curve."""
    sum_D = np.exp(1j * np.deg2rad(orientations)) @ radial
    return np.rad2deg(np.angle(sum_D)) % 360, _ratio(np.abs(sum_D), radial.sum(axis=0))


def half_width(radial: Float[np.ndarray, "a d"]) -> Float[np.ndarray, " d"]:
    """Full width at half maximum of the highest peak, in degrees, linear between samples."""
    count = len(radial)
    centred_AD = _roll_to_peak(radial)
    half_D = centred_AD[0] / 2
    after_D = _steps_to(centred_AD, half_D)
    before_D = _steps_to(centred_AD[-np.arange(count)], half_D)
    return np.asarray(np.minimum((after_D + before_D) * 360 / count, 360.0))


def envelope(radial: Float[np.ndarray, "a d"]) -> Float[np.ndarray, " a"]:
    """How well a family covers the circle: the highest of its curves, each scaled to 1."""
    return np.asarray(_ratio(radial, radial.max(axis=0)).max(axis=1, initial=0.0))


def minima(curve: Float[np.ndarray, " a"]) -> list[int]:
    """Indices of the local minima of a circular curve, a flat bottom counted once."""
    after = np.roll(curve, -1)
    falling = np.sign(after - curve)
    found = []
    for start in np.flatnonzero((np.roll(falling, 1) < 0) & (falling >= 0)):
        end = int(start)
        while falling[end % len(curve)] == 0:
            end += 1
        if falling[end % len(curve)] > 0:
            found.append(int((start + (end - start) // 2) % len(curve)))
    return found


def gaps(orientations: Sequence[float]) -> list[Gap]:
    """The stretches between neighbouring orientations, in order; the whole circle for none."""
    ordered = np.sort(np.asarray(orientations, dtype=float) % 360)
    if len(ordered) == 0:
        return [Gap(0.0, 360.0)]
    widths = np.diff(ordered, append=ordered[0] + 360)
    return [Gap(float(a), float(w)) for a, w in zip(ordered, widths, strict=True)]


def coverage(orientations: Sequence[float]) -> Gap:
    """The largest gap between neighbouring orientations; all of the circle if there are none."""
    return max(gaps(orientations), key=lambda gap: gap.degrees)


def widest_gaps(orientations: Sequence[float]) -> list[Gap]:
    """The largest gap, and all that are as large to the degree."""
    found = gaps(orientations)
    widest = round(max(gap.degrees for gap in found))
    return [gap for gap in found if round(gap.degrees) == widest]


def lowest(curve: Float[np.ndarray, " a"]) -> list[int]:
    """Indices of the minima of a circular curve that are as low as the lowest, to two decimals; a
    flat bottom counts once, and a curve without any dip has none."""
    found = minima(curve)
    least = round(min((float(curve[i]) for i in found), default=0.0), 2)
    return [i for i in found if round(float(curve[i]), 2) == least]


def degrees(angle: float, digits: int = 0) -> str:
    """A rounded orientation, from 0 to below 360 degrees."""
    return f"{round(angle, digits) % 360:.{digits}f}°"


def angle_between(first: float, second: float) -> float:
    """The smaller angle between two directions, 0 to 180 degrees."""
    return abs((first - second + 180) % 360 - 180)


def _rival(
    responses: Float[np.ndarray, "a q e d"], rivals: Float[np.ndarray, "k d"] | None
) -> np.ndarray:
    """The greatest response to a rival over that to a curve."""
    if rivals is None or not len(rivals):
        return np.zeros(responses.shape[-1])
    curve_D = np.maximum(responses.max(axis=(0, 1, 2)), 0).astype(np.float64)
    rival_D = rivals.max(axis=0).astype(np.float64)
    silent = np.where(rival_D > 0, np.inf, 0.0)
    return np.asarray(np.divide(rival_D, curve_D, out=silent, where=curve_D > 0))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above / below`, and 0 where both vanish."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))


def _roll_to_peak(radial_AD: np.ndarray) -> np.ndarray:
    """Each curve turned so that its highest sample comes first."""
    count = len(radial_AD)
    index_AD = (radial_AD.argmax(axis=0)[None] + np.arange(count)[:, None]) % count
    return np.asarray(np.take_along_axis(radial_AD, index_AD, axis=0))


def _steps_to(centred_AD: np.ndarray, level_D: np.ndarray) -> np.ndarray:
    """Samples from the peak until the curve has fallen to `level`, linear in between."""
    below_AD = centred_AD < level_D
    first_D = below_AD.argmax(axis=0)
    never_D = ~below_AD.any(axis=0)
    columns = np.arange(centred_AD.shape[1])
    above_D = centred_AD[np.maximum(first_D - 1, 0), columns]
    under_D = centred_AD[first_D, columns]
    part_D = _ratio(above_D - level_D, above_D - under_D)
    return np.where(never_D, len(centred_AD), first_D - 1 + part_D)


def _refined_peak(radial_AD: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """The top of the parabola through the highest sample and its two neighbours."""
    centred_AD = _roll_to_peak(radial_AD)
    before_D, top_D, after_D = centred_AD[-1], centred_AD[0], centred_AD[1]
    bend_D = 2 * top_D - before_D - after_D
    shift_D = _ratio(after_D - before_D, 2 * bend_D)
    start_D = np.asarray(orientations, dtype=float)[radial_AD.argmax(axis=0)]
    return np.asarray((start_D + shift_D * 360 / len(radial_AD)) % 360)


def _echo(radial_AD: np.ndarray) -> np.ndarray:
    """The highest response about the opposite of the peak, over the peak."""
    count = len(radial_AD)
    centred_AD = _roll_to_peak(radial_AD)
    away = np.abs(np.arange(count) * 360 / count - 180)
    behind_D = centred_AD[away <= ECHO_WINDOW + 1e-9].max(axis=0)
    return np.where(centred_AD[0] > 0, _ratio(behind_D, centred_AD[0]), 1.0)
